"""``ecology suite``: the shipped suites, and whether they are what they claim."""

from __future__ import annotations

from pathlib import Path

from ecology.evaluator.copying import overlap
from ecology.evaluator.library import load_any_suite
from ecology.evaluator.suites import items
from ecology.pipeline.corpora import shipped_corpora
from ecology.pipeline.house import House
from ecology.pipeline.places import shared


def list_suites() -> list[str]:
    """One line a suite."""
    lines = []
    for path in _files():
        suite = load_any_suite(path)
        lines.append(f"{suite.id:<12} v{suite.version}  {suite.kind:<11} {suite.digest[7:19]}  {suite.title}")
    return lines


def verify_suites(house: House) -> tuple[list[str], list[str]]:
    """Expands every split and compares it with every shipped corpus.

    Returns:
        Lines to print, and problems.

    Raises:
        ConfigError: A suite or corpus is malformed.
    """
    lines, problems = [], []
    corpora = shipped_corpora()
    for path in _files():
        suite = load_any_suite(path)
        if suite.kind == "lm_eval":
            lines.append(f"{suite.id}: a stock lm-eval task with local data, public")
            continue
        public = items(suite, "public")
        hidden = items(suite, "hidden", house.split_seed(suite.digest, "hidden"))
        shared_items = {item.prompt for item in public} & {item.prompt for item in hidden}
        lines.append(f"{suite.id}: {len(public)} public and {len(hidden)} hidden items, {len(shared_items)} in both")
        if shared_items:
            problems.append(f"{suite.id}: {len(shared_items)} items are public and hidden")
        for digest, rows in corpora.items():
            share = overlap(rows, (*public, *hidden))
            if share.exact or share.shingles:
                what = f"{share.exact:.1%} of its prompts, {share.shingles:.1%} by runs of eight words"
                problems.append(f"{suite.id}: corpus {digest[7:19]} shares {what}")
    return lines, problems


def _files() -> list[Path]:
    return sorted(shared("suites").glob("*/suite.yaml"))
