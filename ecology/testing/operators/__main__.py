"""``python -m ecology.testing.operators [--against peft] [--out FILE]``: the conformance table of what is installed.

Exits 1 when an operator of ours or of a plug-in does not conform, 0 otherwise; what the others do is theirs.
"""

from __future__ import annotations

import argparse
import os
import sys
from importlib.metadata import version
from pathlib import Path

from ecology.store.files import write_atomic
from ecology.telemetry.progress import BarProgress
from ecology.testing.operators.flags import FLAGS
from ecology.testing.operators.peft_library import library_subjects
from ecology.testing.operators.subjects import installed_subjects
from ecology.testing.operators.table import flag_grid, grid, page


def main(arguments: list[str] | None = None) -> int:
    """Runs the suite and prints or writes the page."""
    parser = argparse.ArgumentParser(prog="python -m ecology.testing.operators", description=__doc__)
    parser.add_argument("--against", choices=["peft"], help="run another tool's merges beside ours")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where to write the page; default: standard output")
    options = parser.parse_args(arguments)
    os.environ["HF_HUB_OFFLINE"] = "1"  # PEFT asks the hub about a base's vocabulary when it saves
    mine, others = installed_subjects(), library_subjects() if options.against else {}
    with BarProgress().track("conformance", len(mine) + len(others) + (len(FLAGS) if others else 0)) as step:
        ours = grid(mine, step.advance)
        theirs = grid(others, step.advance) if others else None
        flags = flag_grid(step.advance) if others else None
    versions = [f"{name} {version(name)}" for name in ("numpy", *(("peft", "torch", "transformers") if others else ()))]
    text = page(ours, theirs, flags, versions)
    if options.out is None:
        sys.stdout.write(text)
    else:
        write_atomic(options.out, text.encode())
    conforms = all(cell.conforms for row in ours.values() for cell in row.values())
    conforms &= all(cell.conforms for row in (flags or {}).values() for who, cell in row.items() if "ours" in who)
    return 0 if conforms else 1


if __name__ == "__main__":
    sys.exit(main())
