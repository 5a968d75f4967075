from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from ecology.backend.bases import BaseModel
from ecology.errors import ConfigError
from ecology.evaluator import remembered
from ecology.evaluator.asking import Evaluator
from ecology.evaluator.cache import ResultCache
from ecology.evaluator.lmeval import load_task_suite, run_tasks
from ecology.evaluator.remembered import RememberedTokens
from ecology.kernel.canonical import digest
from ecology.runtime.engine import TransformersEngine
from ecology.runtime.packing import Question
from ecology.store.adapters import describe
from ecology.telemetry.progress import SilentProgress
from ecology.testing.toys import toy_adapter, toy_base

CHOICE = """
task: capitals
dataset_path: json
dataset_kwargs: {data_files: capitals.jsonl}
test_split: train
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{options}}"
doc_to_target: "{{right}}"
metric_list: [{metric: acc}, {metric: acc_norm}]
"""
REPLY = """
task: replies
dataset_path: json
dataset_kwargs: {data_files: {train: [capitals.jsonl]}}
test_split: train
num_fewshot: 1
fewshot_split: train
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{options[right]}}"
generation_kwargs: {until: ["a"], max_gen_toks: 6}
metric_list: [{metric: exact_match}]
"""
TEXT = """
task: texts
dataset_path: json
dataset_kwargs: {data_files: capitals.jsonl}
test_split: train
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{question}}"
metric_list: [{metric: word_perplexity}, {metric: byte_perplexity}]
"""
SUITE = """
id: capitals
version: 1
title: Capitals
licence: Apache-2.0
kind: lm_eval
capability: general-knowledge
task: capitals
"""
DOCUMENTS = [
    {"question": f"Capital number {n}?", "options": ["Oslo", "Lima", "Bern"], "right": n % 3} for n in range(5)
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    return toy_base(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def engine(base: BaseModel) -> TransformersEngine:
    return TransformersEngine(base, threads=1, batch_size=4)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    (tasks / "capitals.jsonl").write_text("".join(json.dumps(d) + "\n" for d in DOCUMENTS), encoding="utf-8")
    for name, text in (("capitals", CHOICE), ("replies", REPLY), ("texts", TEXT), ("suite", SUITE)):
        (tasks / f"{name}.yaml").write_text(text, encoding="utf-8")
    return tasks


def test_stock_tasks_run_offline_on_the_engine(
    engine: TransformersEngine, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    choice, reply, text = run_tasks(engine, folder, ["capitals", "replies", "texts"], None, SilentProgress())
    contexts = [engine.encode_raw(d["question"]) for d in DOCUMENTS]
    for number, (document, context) in enumerate(zip(DOCUMENTS, contexts, strict=True)):
        likely = [engine.score_tokens([_question(engine, context, f" {o}")])[0][0].logprob for o in document["options"]]
        assert choice.scores["acc"][str(number)] == float(likely.index(max(likely)) == document["right"])
    assert choice.aggregate["acc"] == pytest.approx(sum(choice.scores["acc"].values()) / 5)
    assert set(reply.scores["exact_match"]) == {"0", "1", "2", "3", "4"}
    assert text.aggregate["byte_perplexity"] > 1
    assert capsys.readouterr().err == ""


def _question(engine: TransformersEngine, context: list[int], answer: str) -> object:
    from ecology.runtime.packing import Question

    return Question(tuple(context), (tuple(engine.encode_raw(answer)),))


def test_adapters_do_not_share_answers_and_limits_hold(
    engine: TransformersEngine, base: BaseModel, folder: Path, tmp_path: Path
) -> None:
    artifact = toy_adapter(base, tmp_path / "adapter", strength=2.0)
    suite = load_task_suite(folder)
    cache = ResultCache(tmp_path / "results")
    evaluator = Evaluator(engine, cache, SilentProgress())
    assert suite.grammar["documents"] == 0
    bare = evaluator.ask(digest("b"), None, suite, "public", ())
    evaluator.ask(artifact.digest, tmp_path / "adapter", suite, "public", ())
    assert set(bare["acc"]) == {"0", "1", "2", "3", "4"}
    assert all(isinstance(value, bool) for value in bare["acc"].values())
    assert evaluator.ask(digest("b"), None, suite, "public", ()) == bare
    assert len(cache) == 2 * (1 + 5), "of each the task and its five documents"
    (limited,) = run_tasks(engine, folder, ["capitals"], 2, SilentProgress())
    assert set(limited.scores["acc"]) == {"0", "1"}


def test_a_suites_digest_covers_task_and_data(folder: Path) -> None:
    first = load_task_suite(folder / "suite.yaml")
    data = folder / "capitals.jsonl"
    data.write_text(data.read_text() + json.dumps(DOCUMENTS[0]) + "\n", encoding="utf-8")
    assert load_task_suite(folder).digest != first.digest


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("doc_to_text: ", "process_docs: !function evil.py\ndoc_to_text: ", "no evil.py beside|names no function"),
        ("doc_to_text: ", "process_docs: !!python/name:os.system\ndoc_to_text: ", "not plain YAML"),
        ("doc_to_text: ", "metadata: &a [x]\nother: [*a, *a]\ndoc_to_text: ", "anchors and aliases"),
        ("{{question}}", "{{question.__class__}}", "unsafe"),
        ("{metric: acc}", "{metric: acc, hf_evaluate: true}", "can run code"),
        ("{data_files", "{trust_remote_code: true, data_files", "can run code"),
        ("test_split", "class: evil.Task\ntest_split", "can run code"),
        ("dataset_path: json", "dataset_path: evil/data", "dataset_path"),
        ("capitals.jsonl", "../capitals.jsonl", "not beside the task"),
        ("capitals.jsonl", "", "not plain|names no file"),
        ("test_split", "generation_kwargs: {do_sample: true}\ntest_split", "sampling"),
        ("task: capitals", "task: others", "no task"),
        ("output_type: multiple_choice", "output_type: nonsense", "lm-eval refuses"),
    ],
)
def test_tasks_that_cannot_be_trusted_or_run(
    engine: TransformersEngine, folder: Path, old: str, new: str, reason: str
) -> None:
    for file in folder.glob("*.yaml"):
        if file.name != "capitals.yaml":
            file.unlink()
    (folder / "capitals.yaml").write_text(CHOICE.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ConfigError, match=reason):
        run_tasks(engine, folder, ["capitals"], None, SilentProgress())


@pytest.mark.parametrize("change", [("kind: lm_eval", "kind: choice"), ("version: 1", "version: x"), ("id:", "name:")])
def test_suites_that_are_none(folder: Path, change: tuple[str, str]) -> None:
    (folder / "suite.yaml").write_text(SUITE.replace(*change), encoding="utf-8")
    with pytest.raises(ConfigError):
        load_task_suite(folder)


class Once:
    """A token engine that counts questions and can be killed after some."""

    def __init__(self, engine: TransformersEngine, left: int = 10**6) -> None:
        self._engine, self.left, self.asked = engine, left, 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._engine, name)

    def score_tokens(self, questions: Sequence[Question], progress: object = None) -> object:
        if self.left < len(questions):
            raise KeyboardInterrupt
        self.left -= len(questions)
        self.asked += len(questions)
        return self._engine.score_tokens(questions)


def test_a_killed_task_goes_on_where_it_was_and_a_rerun_asks_nothing(
    engine: TransformersEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remembered, "SLICE", 2)
    questions = [Question((n, 5), ((6, 7), (8,))) for n in range(5, 12)]
    cache, who = ResultCache(tmp_path / "cache"), {"adapter": "a"}
    with pytest.raises(KeyboardInterrupt):
        RememberedTokens(Once(engine, left=5), cache, who).score_tokens(questions)
    assert len(cache) == 4
    second = Once(engine)
    found = RememberedTokens(second, cache, who).score_tokens(questions)
    assert second.asked == 3
    assert [[s.greedy for s in scores] for scores in found] == [
        [s.greedy for s in scores] for scores in engine.score_tokens(questions)
    ]
    third = Once(engine)
    assert RememberedTokens(third, cache, who).score_tokens(questions) == found
    assert third.asked == 0
    replies = RememberedTokens(engine, cache, who).continue_tokens([[5, 6], [7]], 4, None, ("a",))
    assert RememberedTokens(third, cache, who).continue_tokens([[5, 6], [7]], 4, None, ("a",)) == replies
    assert replies == engine.continue_tokens([[5, 6], [7]], 4, None, ("a",))


def test_the_peers_cache_gives_the_first_adapters_answers_to_the_second_and_ours_does_not(
    engine: TransformersEngine, base: BaseModel, tmp_path: Path
) -> None:
    """lm-eval's cache is keyed by the request alone (EleutherAI/lm-evaluation-harness issue 4063)."""
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import CachingLM

    from ecology.evaluator.lmeval_run import EngineLM

    folders = [tmp_path / "one", tmp_path / "two"]
    for seed, folder in enumerate(folders):
        toy_adapter(base, folder, seed=seed, strength=2.0)
    asked = [Instance("loglikelihood", {}, ("Capital?", " Oslo"), 0)]
    cache = ResultCache(tmp_path / "cache")
    truth, theirs, ours = [], [], []
    for folder in folders:
        with engine.attach(folder):
            truth.append(EngineLM(engine, SilentProgress()).loglikelihood(asked)[0][0])
            peer = CachingLM(EngineLM(engine, SilentProgress()), str(tmp_path / "peer.db"))
            theirs.append(peer.loglikelihood(asked)[0][0])
            kept = RememberedTokens(engine, cache, {"adapter": describe(folder).digest})
            ours.append(EngineLM(kept, SilentProgress()).loglikelihood(asked)[0][0])
    assert truth[0] != truth[1]
    assert theirs[0] == theirs[1] == truth[0]
    assert ours == truth
