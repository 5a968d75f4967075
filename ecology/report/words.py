"""Numbers and names as they are shown, the same in every format.

Names come from outside: a folder may be called ``<script>`` or hold a character that turns the reading direction.
Escaping is each renderer's duty; making what is invisible visible is done here, once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ecology.kernel.invisible import all_visible

MINUS = "\N{MINUS SIGN}"


def visible(text: str) -> str:
    r"""Text in which every character can be seen: hidden ones as ``\u{202E}``, any white space as a space."""
    if all_visible(text):
        return text
    return "".join(_seen(char) for char in text)


def _seen(char: str) -> str:
    if all_visible(char):
        return char
    return " " if char.isspace() else f"\\u{{{ord(char):04X}}}"


def short(digest: str) -> str:
    """The first 12 hex digits of a digest; other text as it is."""
    return digest.removeprefix("sha256:")[:12] if digest.startswith("sha256:") else digest


def share(value: float) -> str:
    """A rate 0 to 1 as a percentage with one decimal, so that columns line up: ``93.5 %``."""
    return f"{100 * value:.1f} %"


def number(value: float) -> str:
    """Up to four significant digits, a real minus sign, no exponent below a million."""
    text = f"{value:.4g}" if abs(value) < 1e6 else f"{value:.6g}"
    return text.replace("-", MINUS)


def fixed(value: float) -> str:
    """Two decimals and a real minus sign, so that a column lines up."""
    return f"{value:.2f}".replace("-", MINUS)


def quantity(value: float, unit: str) -> str:
    """A value with its unit.

    Args:
        value: The number, rates as fractions.
        unit: ``share`` (``93.5 %``), ``points`` (``+1.5 pp``), ``bytes`` (``512 MiB``), ``ratio`` (``1.04 ×``), ``s``
            (``0.82 s``), ``count`` (``3``); another one is written behind the number.
    """
    known: Mapping[str, Callable[[float], str]] = {
        "share": share,
        "points": lambda v: f"{100 * v:+.1f} pp".replace("-", MINUS),
        "bytes": size,
        "ratio": lambda v: f"{v:.2f} ×",
        "s": lambda v: f"{v:.2f} s",
        "count": lambda v: f"{v:.0f}",
    }
    if unit in known:
        return known[unit](value)
    return number(value) if not unit else f"{number(value)} {unit}"


def between(low: float | None, high: float | None, unit: str) -> str:
    """An interval: ``90.1 to 96.2 %``; one-sided where a bound is missing, empty without any."""
    if low is None or high is None:
        one = low if high is None else high
        return "" if one is None else f"at {'least' if high is None else 'most'} {quantity(one, unit)}"
    first, last = quantity(low, unit), quantity(high, unit)
    same = first.rpartition(" ")[2] == last.rpartition(" ")[2]
    return f"{first.rpartition(' ')[0] if same and ' ' in first else first} to {last}"


def size(value: float) -> str:
    """Bytes in the largest binary unit that keeps it above 1."""
    for name, scale in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if value >= scale:
            return f"{value / scale:.1f} {name}".replace(".0 ", " ")
    return f"{value:.0f} B"


def duration(seconds: float) -> str:
    """Seconds as ``8.2 s``, ``3 min 20 s`` or ``1 h 05 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def plural(count: int, one: str, many: str = "") -> str:
    """``1 rule``, ``3 rules``."""
    return f"{count} {one}" if count == 1 else f"{count} {many or one + 's'}"
