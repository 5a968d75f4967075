"""What can be demanded of, and of what kind it is: a rule over an unknown metric is a mistake, not a rule that passes.

Metrics of suites are ``suite.score``; which scores a suite has follows from its kind, so a user's own suite brings its
metrics with it by ``known_metrics({"contracts": "extraction"})``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

from ecology.contracts.evidence import SuiteKind
from ecology.contracts.gain import CLAIM_METRIC

Kind = Literal["count", "proportion", "samples"]


@dataclasses.dataclass(frozen=True, slots=True)
class Metric:
    """One thing that can be measured."""

    name: str
    kind: Kind
    """Of its statistic; a proportion that is compared is a paired difference."""
    title: str


STATIC: Mapping[str, str] = {
    "static.files": "foreign or missing files, links and sub-folders",
    "static.config": "keys or values of adapter_config.json that a LoRA does not need",
    "static.tensors": "tensors that are not a declared factor of a declared module, or not of its shape and type",
    "static.finite": "tensors with a value that is not finite",
    "static.base": "signs that the adapter was made for another base",
    "static.signature": "reasons why no trusted key vouches for these bytes and their genome",
    "static.development": "development keys among the signers",
    "static.taint": "corpora in the lineage that must not be trained on, or under a licence that is not listed",
    "static.overlap": "corpora in the lineage that share prompts with the suites",
    "static.limits": "sizes, ranks, scales and norms that are out of bounds",
    "static.anomaly": "statistics of the spectra that are unlike those of the adapters bred on this base",
}
"""Answered without a model, each a count of violations."""

SCORES: Mapping[SuiteKind, Mapping[str, Kind]] = {
    "extraction": {
        "valid_json": "proportion",
        "schema_valid": "proportion",
        "exact": "proportion",
        "fields": "samples",
    },
    "refusal": {"refused": "proportion"},
    "choice": {
        "correct": "proportion",
        "brier": "samples",
        "confidence": "samples",
        "smooth_ece": "samples",
    },
    "numeric": {"correct": "proportion"},
    "instruction": {"followed": "proportion", "constraints": "samples"},
    "pair": {"stereotyped": "proportion"},
    "lm_eval": {"acc": "proportion", "acc_norm": "proportion", "exact_match": "proportion"},
}
"""Scores of a suite by its kind."""

SHIPPED_SUITES: Mapping[str, SuiteKind] = {
    "orders": "extraction",
    "harmful": "refusal",
    "lookalike": "refusal",
    "general": "choice",
    "arithmetic": "numeric",
    "intents": "choice",
    "contacts": "extraction",
    "formats": "instruction",
    "puzzles": "choice",
    "jailbreak": "refusal",
    "bias": "pair",
    "truths": "choice",
}
"""The suites that this package ships."""
ASKED_AGAIN: Mapping[str, Kind] = {"worst": "proportion", "spread": "samples"}
"""Further scores of suites whose items are asked again with noise: right under every kind, best kind minus worst."""
TWINNED: Mapping[str, Kind] = {"twins": "proportion"}
"""Further scores of suites with a right answer: twins of the public items that nobody could have seen."""
STOCK_RECORDS: Mapping[str, SuiteKind] = {"svamp": "numeric", "xstest": "refusal", "xstest_unsafe": "refusal"}
"""Data sets of others that are asked as items of ours."""
STOCK_TASKS: Mapping[str, tuple[str, ...]] = {
    "gsm8k": ("exact_match.strict-match", "exact_match.flexible-extract"),
    "truthfulqa": ("acc",),
    "bbq": ("acc",),
    "ifeval": ("prompt_level_strict_acc", "prompt_level_loose_acc"),
}
"""Stock tasks of lm-eval that a rule may name, and their scores: lm-eval's metric, behind a dot the filter if any.

Each is right or wrong for a document. A configuration may ask any other task of lm-eval for the report alone."""

_TABLE = (
    *(Metric(name, "count", title) for name, title in STATIC.items()),
    Metric("liveness.failures", "count", "ways in which the adapter does not apply, or changes the base"),
    Metric("resource.latency_ratio", "samples", "latency over the base's, same request, interleaved"),
    Metric("resource.latency_s", "samples", "seconds a request takes"),
    Metric("resource.first_token_ratio", "samples", "time to the first token over the base's, interleaved"),
    Metric("resource.first_token_s", "samples", "seconds to the first token of a reply"),
    Metric("resource.token_ratio", "samples", "time of each further token over the base's, interleaved"),
    Metric("resource.token_ms", "samples", "milliseconds of each further token"),
    Metric("resource.peak_memory_bytes", "samples", "peak resident memory while serving"),
    Metric("resource.size_bytes", "samples", "bytes of the adapter's files"),
    Metric("resource.retained_energy", "samples", "share of the change that projection kept, of the worst module"),
    Metric("robust.exact", "proportion", "exact answers to items with noise in them"),
    Metric("contamination.gap", "count", "suites whose public items are easier than twins that nobody could have seen"),
    Metric("contamination.shuffle", "count", "suites whose score falls when the options change places"),
    Metric("contamination.canary", "count", "canary strings of suites in a corpus of the lineage"),
    Metric("contamination.covered", "count", "suites of which a corpus of the lineage holds items, by runs of words"),
    Metric(CLAIM_METRIC, "count", "criteria that a claimed gain was shown to miss; open ones are a caveat"),
    Metric("coverage.cells", "proportion", "cells of the coverage matrix with enough items to count as measured"),
)


def known_metrics(suites: Mapping[str, SuiteKind] | None = None) -> Mapping[str, Metric]:
    """Every metric by name.

    Args:
        suites: Further suites by id; the shipped ones are always known.
    """
    of_suites = (
        Metric(f"{suite}.{score}", kind, f"{score} on the items of {suite}")
        for suite, suite_kind in {**SHIPPED_SUITES, **STOCK_RECORDS, **(suites or {})}.items()
        for score, kind in _scores(suite_kind).items()
    )
    of_tasks = (
        Metric(f"{task}.{score}", "proportion", f"{score} on the documents of {task}")
        for task, scores in STOCK_TASKS.items()
        for score in scores
    )
    return {metric.name: metric for metric in (*_TABLE, *of_suites, *of_tasks)}


def _scores(kind: SuiteKind) -> Mapping[str, Kind]:
    again = {} if kind in ("pair", "lm_eval") else ASKED_AGAIN
    twinned = {} if kind in ("pair", "lm_eval", "refusal") else TWINNED
    shuffled: Mapping[str, Kind] = {"shuffled": "proportion"} if kind == "choice" else {}
    return {**SCORES[kind], **again, **twinned, **shuffled}


def split_is_needed(metric: str) -> bool:
    """Whether a metric is measured on items, so that a rule has to name their split."""
    return metric.split(".", 1)[0] not in ("static", "liveness", "resource", "coverage", "claim")
