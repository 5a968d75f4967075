"""``ecology run ... --dry-run``: who would be trained and bred, and what learning by reward will take.

Nothing is fetched, trained or written. What is wrong with the configuration is told as a run would tell it, behind the
estimate, since a corpus that has still to be brought here is no reason not to know what training on it costs. Of a
sweep (``-m``) every job is planned.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ecology.breeder.cost import MACHINES, SHAPES, Cost, cost
from ecology.breeder.grpo import GrpoOptions
from ecology.breeder.parametrisation import SEVEN, TinyLoraOptions, even, tying
from ecology.errors import EXIT_OK, EXIT_USAGE
from ecology.pipeline import compose
from ecology.pipeline.launching import plan_sweep
from ecology.pipeline.options import read_options
from ecology.pipeline.plan import mistakes
from ecology.pipeline.settings import Settings
from ecology.telemetry.progress import BarProgress, SilentProgress


def dry_run(overrides: Sequence[str], overlay: Path | None) -> int:
    """Prints the forecast; exit code 0, or 2 where a run could not be planned.

    Raises:
        ConfigError: The configuration does not compose.
    """
    settings, plain = compose.compose(overrides, overlay)
    print("\n".join(outline(settings)))
    problems = mistakes(plain)
    for problem in problems:
        print(f"not yet: {problem}")
    return EXIT_USAGE if problems else EXIT_OK


def dry_sweep(overrides: Sequence[str], overlay: Path | None, *, quiet: bool = False) -> int:
    """Prints what each job of a sweep would train and breed, jobs that do the same together.

    Args:
        overrides: Swept keys included.
        overlay: A folder with the user's own groups.
        quiet: Whether to show no progress.

    Returns:
        Exit code 0, or 2 where a job could not run.

    Raises:
        ConfigError: The configuration does not compose, or no job can run.
    """
    jobs = plan_sweep(overrides, overlay, SilentProgress() if quiet else BarProgress())
    alike: dict[tuple[str, ...], list[str]] = {}
    for job in jobs:
        lines = (f"cannot run: {job.error}",) if job.error else tuple(outline(compose.check(job.config)))
        alike.setdefault(lines, []).append(f"job {job.number} ({job.label})")
    for lines, names in alike.items():
        print("\n  ".join((f"{', '.join(names)}:", *lines)))
    broken = sum(bool(job.error) for job in jobs)
    print(f"{len(jobs)} jobs, of which {broken or 'none'} cannot run; then one pick among all that they admit")
    return EXIT_USAGE if broken else EXIT_OK


def outline(settings: Settings) -> list[str]:
    """Who is trained and bred, in lines for people."""
    lines = []
    base = str(settings.base.get("name", ""))
    for name, founder in settings.population.founders.items():
        lines.append(f"founder {name}: {founder.kind}")
        if founder.kind == "tinylora_grpo":
            options: GrpoOptions = read_options(GrpoOptions, founder.options, f"population.founders.{name}.options")
            lines += [f"  {line}" for line in told(options, base)]
    lines += [f"child {name}: {one.kind}, {len(one.variants)} of it" for name, one in settings.breeder.items()]
    return lines


def told(options: GrpoOptions, base: str) -> list[str]:
    """What one training by reward will take, in lines for people.

    Args:
        options: The recipe.
        base: Name of the base's preset.
    """
    lines = [
        f"{options.steps} steps of {options.prompts} prompts with {options.group} replies of up to "
        f"{options.max_new_tokens} tokens; rate {options.learning_rate:g}, beta {options.beta:g}"
    ]
    if (shape := SHAPES.get(base)) is None:
        return [*lines, f"nothing is known of the size of {base or 'this base'}, so nothing is said of its cost"]
    kind, _, adapter = options.parametrisation()
    if isinstance(adapter, TinyLoraOptions) and adapter.targets == SEVEN:
        modules = len(SEVEN) * (adapter.layers or shape.layers)
        count = even(tying(modules, adapter.n_tie, adapter.groups)).groups * adapter.u
        lines.append(f"{kind}: {count} numbers, {4 * count} bytes, for {modules} modules")
    machine = MACHINES["two cores" if shape.parameters < 1e9 else "one H100"]
    found = cost(options, shape, machine)
    lines.append(f"on {machine.name}, replies at full length: {_words(found)}")
    if not found.fits:
        lines.append(f"that does not fit into {machine.memory / 1e9:.0f} GB: fewer prompts a step, or shorter replies")
    return lines


def _words(found: Cost) -> str:
    hours = found.seconds / 3600
    time = f"{hours:.1f} hours" if hours >= 1 else f"{found.seconds / 60:.0f} minutes"
    return f"{found.memory / 1e9:.1f} GB, {time}, about {found.dollars:.2f} US dollars"
