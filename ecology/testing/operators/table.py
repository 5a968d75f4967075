"""The table of the suite: every case by every operator, ours and theirs, errors as numbers.

A cell is the largest relative error that was seen, ``ok`` where a case has no number, ``-`` where nothing of the kind
is claimed, **bold** where it does not conform, ``refused`` where the input is turned down with a message, ``raises``
where it ends in another exception.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ecology.errors import EcologyError
from ecology.testing import NonconformingError
from ecology.testing.operators.cases import CASES, TOLERANCE, Subject
from ecology.testing.operators.flags import CONTENDERS, FLAGS, Outcome

COMMAND = "python -m ecology.testing.operators"
OUTPUT_TOLERANCE = 1e-5
"""Largest error of a child's outputs in float32."""
WITHOUT_A_NUMBER = frozenset(
    {
        *("duplicate_parents", "edge_options", "one_module", "parents_unchanged", "rank_one"),
        *("same_seed_same_bytes", "zero_adapter"),
    }
)

Tick = Callable[[], object]
"""Is called when an operator or a flag is done."""


@dataclasses.dataclass(frozen=True, slots=True)
class Cell:
    """One case on one operator."""

    text: str
    conforms: bool

    def __str__(self) -> str:
        return self.text if self.conforms else f"**{self.text}**"


def judge(case: str, subject: Subject) -> Cell:
    """Runs one case; whatever it raises becomes a cell."""
    try:
        with np.errstate(all="ignore"):
            error = CASES[case](subject)
    except NonconformingError as failure:
        return Cell("wrong" if failure.error is None else f"{failure.error:.2g}", conforms=False)
    except (EcologyError, ValueError) as refusal:
        # A failure to converge is a subclass of ValueError, and no refusal.
        refused = type(refusal) is ValueError or isinstance(refusal, EcologyError)
        return Cell("refused" if refused else f"raises {type(refusal).__name__}", conforms=False)
    except Exception as crash:
        return Cell(f"raises {type(crash).__name__.lstrip('_')}", conforms=False)
    if error is None:
        return Cell("-", conforms=True)
    return Cell("ok" if case in WITHOUT_A_NUMBER else f"{error:.0e}", conforms=True)


def grid(subjects: Mapping[str, Subject], tick: Tick) -> Mapping[str, Mapping[str, Cell]]:
    """Case -> operator -> cell."""
    found: dict[str, dict[str, Cell]] = {case: {} for case in CASES}
    for name, subject in subjects.items():
        for case in CASES:
            found[case][name] = judge(case, subject)
        tick()
    return found


def flag_grid(tick: Tick) -> Mapping[str, Mapping[str, Cell]]:
    """Flag -> contender -> cell."""
    found: dict[str, dict[str, Cell]] = {}
    for name, flag in FLAGS.items():
        found[name] = {who: _of(contend(flag)) for who, contend in CONTENDERS.items()}
        tick()
    return found


def _of(outcome: Outcome) -> Cell:
    if isinstance(outcome, str):
        return Cell(outcome, conforms=outcome.startswith("refused") or outcome == "raises ValueError")
    return Cell(f"{outcome:.0e}" if outcome <= OUTPUT_TOLERANCE else f"{outcome:.2g}", outcome <= OUTPUT_TOLERANCE)


def summary(
    ours: Mapping[str, Mapping[str, Cell]], theirs: Mapping[str, Mapping[str, Cell]]
) -> Mapping[str, Mapping[str, Cell]]:
    """Case -> who -> how all operators together do: the worst error where all conform, else who does not and how."""
    return {
        case: {f"ours ({len(ours[case])} operators)": _together(ours[case]), "PEFT": _together(theirs[case])}
        for case in CASES
    }


def _together(cells: Mapping[str, Cell]) -> Cell:
    asked = {name: cell for name, cell in cells.items() if cell.text != "-"}
    failed = [f"{name} {cell.text}" for name, cell in asked.items() if not cell.conforms]
    if failed:
        return Cell(f"{', '.join(failed)}; {len(asked) - len(failed)} of {len(asked)} conform", conforms=False)
    numbers = [cell.text for cell in asked.values() if cell.text[:1].isdigit()]
    return Cell(max(numbers, key=float, default="ok" if asked else "-"), conforms=True)


def markdown(title: str, cells: Mapping[str, Mapping[str, Cell]], first: str) -> str:
    """One table."""
    columns = list(next(iter(cells.values())))
    rows = [f"| {first} | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    rows += [f"| {row} | {' | '.join(str(line[c]) for c in columns)} |" for row, line in cells.items()]
    return "\n".join([f"## {title}", "", *rows, ""])


def page(
    ours: Mapping[str, Mapping[str, Cell]],
    theirs: Mapping[str, Mapping[str, Cell]] | None,
    flags: Mapping[str, Mapping[str, Cell]] | None,
    versions: Sequence[str],
) -> str:
    """``docs/conformance.md``."""
    against = " --against peft" if theirs is not None else ""
    parts = [
        "# Conformance of breeding operators",
        "",
        f"Written by `{COMMAND}{against} --out docs/conformance.md` with {', '.join(versions)}.",
        "",
        f"A number is the largest relative error in the Frobenius norm of dW; at most {TOLERANCE:.0e} is allowed. "
        "**Bold** does not conform: a larger number is how far off it is, *wrong* breaks the case without a number, "
        "*refused* turns the input down with a message, *raises* ends in another exception. `-` is not claimed, or "
        "there are no options under which it could hold; the dense formulas of the other operators stand in "
        "`tests/breeder/test_breeder_operators.py`. `unbiased` is the distance of a mean over 200 seeds, which chance "
        "alone makes about 0.1 here; it is held against the variance of the draws.",
        "",
        "What each case asks:",
        "",
        *(f"- `{name}`: {(case.__doc__ or '').splitlines()[0]}" for name, case in CASES.items()),
        "",
        *([markdown("In short", summary(ours, theirs), "case")] if theirs is not None else []),
        markdown("Ours", ours, "case"),
    ]
    if theirs is not None:
        parts += [
            markdown("PEFT, `add_weighted_adapter` by `combination_type`", theirs, "case"),
            "Each is held to what an operator of that name promises here, in float64, with `svd_full_matrices=False` "
            "and, where it cuts or projects, a density or rank that keeps all for `identity_merge`. Weights are 1/N, "
            "and 1 for `ties`, where PEFT divides by the number of parents itself. `density` 0 and 1 are the edges. "
            "`identity_merge` of one parent alone holds for all of them; it is copies of it that fail.",
            "",
        ]
    if flags is not None:
        parts += [
            markdown("Identity merge of one parent, by what its configuration says", flags, "flag"),
            "Error of the child's outputs as a share of the adapter's effect on outputs, after saving the child and "
            f"loading it onto the base; at most {OUTPUT_TOLERANCE:.0e} is allowed. A refusal names the field. We also "
            "refuse what PEFT brings back right: PiSSA, because it holds on a base of its own (saved against the "
            "base, it is bred), and aLoRA, because no dW says from which token on it holds.",
            "",
        ]
    return "\n".join(parts)


def structure(text: str) -> list[str]:
    """Headings, table heads and first columns of a page: what does not change with a machine's last bits."""
    lines = text.splitlines()
    heads = [line for i, line in enumerate(lines) if i + 1 < len(lines) and lines[i + 1].startswith("|---")]
    rows = [line.split("|")[1].strip() for line in lines if line.startswith("| ")]
    return [line for line in lines if line.startswith("#")] + heads + rows
