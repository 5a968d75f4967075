"""What a run was planned with is what it acts on: policy, suites, corpora and traffic, each pinned by its digest.

A run judges by the values that it read for its plan, so a file that is exchanged afterwards decides nothing. But
whatever is read again is compared with the plan, and before an alias moves all of it is: a winner that was judged by
what does not hold any more is not promoted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ecology.contracts.evidence import Suite
from ecology.contracts.identity import Digest
from ecology.contracts.run import ChildPlan, FounderPlan, RunPlan
from ecology.errors import ConfigError
from ecology.evaluator.corpora import load_corpus
from ecology.evaluator.library import load_any_suite
from ecology.pipeline.places import subject
from ecology.pipeline.plan import claim_suites, load_gate_policy, load_suites, stock_suites, trusted_functions
from ecology.pipeline.settings import Settings
from ecology.promotion.traffic import Traffic, load_traffic


def planned_suites(settings: Settings, plan: RunPlan) -> Mapping[str, Suite]:
    """The suites that the plan names.

    Raises:
        ConfigError: One is no longer what was planned.
    """
    found = load_suites(settings, plan.policy)
    for name, suite in found.items():
        _same(f"suite {name}", plan.suites.get(name), suite.digest)
    return found


def planned_traffic(settings: Settings, plan: RunPlan) -> Traffic:
    """The recorded requests that the plan names.

    Raises:
        ConfigError: They are no longer what was planned.
    """
    traffic = load_traffic(subject(settings.evaluator.traffic, "suites"))
    _same(f"traffic {settings.evaluator.traffic}", plan.traffic, traffic.digest)
    return traffic


def refuse_swapped(settings: Settings, plan: RunPlan) -> None:
    """That everything the plan names still lies there as it was planned; all of it is read again.

    Raises:
        ConfigError: Something does not, or cannot be read any more.
        PolicyError: The policy cannot be read any more.
    """
    for what, planned, found in _pins(settings, plan):
        _same(what, planned, found)


def _pins(settings: Settings, plan: RunPlan) -> Iterator[tuple[str, Digest | None, Digest]]:
    yield f"policy {settings.gate.policy}", plan.policy.digest, load_gate_policy(settings.gate).digest
    trusted = tuple(map(Digest, trusted_functions(plan.policy)))
    names = (*settings.evaluator.suites, *claim_suites(settings))
    again = [load_any_suite(subject(name, "suites"), trusted) for name in names]
    for suite in (*again, *stock_suites(settings, trusted)):
        yield f"suite {suite.id}", plan.suites.get(suite.id), suite.digest
    learners: tuple[FounderPlan | ChildPlan, ...] = (*plan.founders, *plan.children)
    for taught in learners:
        if "corpus_digest" in taught.options:
            corpus, _ = load_corpus(subject(str(taught.options["corpus"]), "corpora"))
            yield f"corpus {corpus.id}", Digest(str(taught.options["corpus_digest"])), corpus.digest
    yield f"traffic {settings.evaluator.traffic}", plan.traffic, planned_traffic(settings, plan).digest


def _same(what: str, planned: Digest | None, found: Digest) -> None:
    if planned != found:
        raise ConfigError(
            f"it changed after the run was planned: {planned} then, {found} now",
            where=what,
            todo="put it back, or start the run again: it is planned anew",
        )
