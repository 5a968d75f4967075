"""What people get wrong, as a table: what they type, what lies in their folder, and what they must be told.

Each case runs in a folder of its own. ``says`` are words of the answer: what is wrong, where, or what to do.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


@dataclasses.dataclass(frozen=True)
class Case:
    """One mistake."""

    id: str
    arguments: tuple[str, ...]
    code: int
    says: tuple[str, ...]
    setup: Callable[[Path], None] = lambda _: None
    how: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """What is special about the process: see ``zygote.py``."""


TOY = ("run", "experiment=toy")
SMALL = ("run", "experiment=small", "--config-dir", str(Path(__file__).parent / "small"))
GATE = ("gate", "adapter", "--base", "toy", "--policy", "toy", "--static")


def run(*overrides: str) -> tuple[str, ...]:
    return (*TOY, *overrides)


def file(name: str, text: str | bytes) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())

    return write


def both(*steps: Callable[[Path], None]) -> Callable[[Path], None]:
    def all_of(folder: Path) -> None:
        for step in steps:
            step(folder)

    return all_of


def copied(source: str, target: str) -> Callable[[Path], None]:
    def copy(folder: Path) -> None:
        (folder / target).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, folder / target)
        else:
            shutil.copy(ROOT / source, folder / target)

    return copy


def changed(name: str, old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        text = (folder / name).read_text("utf-8")
        assert old in text, f"{name} has no {old!r}"
        (folder / name).write_text(text.replace(old, new, 1), "utf-8")

    return change


def cut(name: str, size: int) -> Callable[[Path], None]:
    def shorten(folder: Path) -> None:
        (folder / name).write_bytes((folder / name).read_bytes()[:size])

    return shorten


def mode(name: str, bits: int) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).mkdir(parents=True, exist_ok=True) if not (folder / name).exists() else None
        (folder / name).chmod(bits)

    return change


def without_its_last_line(source: str, manifest: str) -> list[list[str]]:
    """Changes that shorten a data file and keep its manifest true: what is there afterwards is well-formed."""
    text = (ROOT / source).read_text("utf-8")
    last = text.splitlines(keepends=True)[-1]
    old, new = (hashlib.sha256(data.encode()).hexdigest() for data in (text, text.removesuffix(last)))
    changes = [[f"{Path(manifest).parent}/{Path(source).name}", last, ""], [manifest, old, new]]
    rows, told = len(text.splitlines()), (ROOT / source).with_name(Path(manifest).name).read_text("utf-8")
    return changes + [[manifest, f"rows: {rows}", f"rows: {rows - 1}"]] * ("rows:" in told)


OVERLAY = ("--config-dir", "mine")
POWERLESS = {"powerless": True}
"""Root without the right to pass by permissions: what anybody else is."""

CONFIGURATION = (
    Case("unknown key", run("sed=3"), 2, ("sed", "did you mean 'seed'")),
    Case("unknown nested key", run("evaluator.public_itms=3"), 2, ("public_itms", "did you mean", "public_items")),
    Case("new key", run("+evaluator.hidden_itmes=3"), 2, ("evaluator.hidden_itmes", "no such key", "hidden_items")),
    Case("new group", run("+breeders.x.kind=ties"), 2, ("breeders", "did you mean 'breeder'")),
    Case("unknown group choice", run("canary=strikt"), 2, ("strikt", "did you mean 'strict'")),
    Case("unknown breeder", run("breeder=[tise]"), 2, ("tise", "did you mean 'ties'", "crossover")),
    Case("unknown group", run("bas=toy"), 2, ("bas",)),
    Case("unknown kind of operator", run("breeder.ties.kind=tise"), 2, ("tise", "ties")),
    Case("unknown kind of founder", run("population.founders.talker.kind=finetun"), 2, ("did you mean 'finetune'",)),
    Case("unknown kind of base", run("base.kind=toi"), 2, ("base.kind", "did you mean 'toy'")),
    Case("unknown option", run("+breeder.ties.options.densty=0.5"), 2, ("densty", "did you mean 'density'")),
    Case("unknown option of a base", run("+base.sead=3"), 2, ("sead", "did you mean 'seed'")),
    Case("word for a number", run("seed=many"), 2, ("seed", "'many'")),
    Case("truth for a number", run("seed=true"), 2, ("seed", "whole number")),
    Case("fraction for a number", run("evaluator.finalists=1.5"), 2, ("evaluator.finalists", "whole number")),
    Case("text for a list", run("evaluator.suites=orders"), 2, ("evaluator.suites",)),
    Case("list for text", run("name=[a,b]"), 2, ("name",)),
    Case("negative seed", run("seed=-1"), 2, ("seed", "-1")),
    Case("huge seed", run("seed=99999999999999999999"), 2, ("seed",)),
    Case("no items", run("evaluator.public_items=0"), 2, ("evaluator.public_items", "between 1 and")),
    Case("no threads", run("backend.threads=0"), 2, ("backend.threads",)),
    Case("density out of range", run("breeder.ties.options.density=7"), 2, ("density",)),
    Case("rank out of range", run("population.founders.talker.options.rank=0"), 2, ("rank",)),
    Case("alpha out of range", run("canary.alpha=7"), 2, ("canary.alpha", "0.5")),
    Case("race out of range", run("evaluator.race.alpha=7", "evaluator.race.look=0", "seed=true"), 2, ("evaluator.race.alpha: 7", "look: 0", "seed")),
    Case("suite twice", run("evaluator.suites=[orders,orders]"), 2, ("'orders' stands twice",)),
    Case("unknown noise", run("+evaluator.perturbations=[tpyos]"), 2, ("'tpyos' is unknown", "typos")),
    Case("search out of range", ("run", "experiment=[toy,optimise]", "optimise.low=3", "optimise.steps=1"), 2, ("optimise.low", "optimise.steps: 1")),
    Case("search of nothing", ("run", "experiment=[toy,optimise]", "optimise.operator=mutate", "optimise.parents=[nobody]", "+optimise.objective.x=1"), 2,
         ("takes no weights", "'nobody'", "no metric 'x'")),
    Case("no step", run("canary.steps=[]"), 2, ("canary.steps",)),
    Case("weight below zero", run("fitness.terms.quality.weight=-1"), 2, ("fitness.terms.quality.weight", "-1")),
    Case("unknown summary", run("fitness.terms.quality.summary=mode"), 2, ("fitness.terms.quality.summary",)),
    Case("several values without -m", run("seed=1,2"), 2, ("seed=1,2", "-m")),
    Case("no founder", (*TOY, "population=none", *OVERLAY), 2, ("nobody to judge",), file("mine/population/none.yaml", "founders: {}\n")),
    Case("unknown parent", run("breeder.mutate.parents=[linear-9]"), 2, ("linear-9", "did you mean 'linear-")),
    Case("own ancestor", run("breeder.mutate.parents=[mutate]"), 2, ("ancestors",)),
    Case("too many parents", run("breeder.mutate.parents=[talker,chatter]"), 2, ("mutate", "2")),
    Case("open key", ("run", "base=hub"), 2, ("base.repo", "base.revision")),
    Case("branch for a commit", ("run", "base=hub", "base.repo=a/b", "base.revision=main"), 2, ("commit",)),
    Case("unknown launcher", run("hydra/launcher=jobllib"), 2, ("jobllib", "did you mean 'joblib'", "basic")),
    Case("no override", run("seed"), 2, ("seed",)),
    Case("unbalanced bracket", run("breeder=[ties"), 2, ("breeder=[ties",)),
    Case("loosened policy", run("+gate.tighten.SAFE-002.threshold=0.9"), 2, ("0.5", "0.9")),
    Case("unknown rule", run("+gate.tighten.SAFE-999.threshold=0.1"), 2, ("SAFE-999",)),
    Case(
        "everything at once",
        run("seed=true", "+breeder.ties.options.densty=1", "gate.policy=relese", "evaluator.suites=[ordrs]", "canary.alpha=7"),
        2,
        ("seed", "did you mean 'density'", "relese", "ordrs", "canary.alpha"),
    ),
    Case("name with a slash", run("name=a/b"), 2, ("name", "'a/b'")),
    Case("unknown command", ("rum",), 2, ("rum", "invalid choice")),
    Case("unknown option of a command", ("run", "--fast"), 2, ("--fast",)),
)  # fmt: skip

FILES = (
    Case("missing policy", run("gate.policy=mine.yaml"), 2, ("mine.yaml", "path")),
    Case("misspelt policy", run("gate.policy=relaese"), 2, ("relaese", "release")),
    Case("missing suite", run("evaluator.suites=[./mine]"), 2, ("mine",)),
    Case("missing corpus", run("population.founders.talker.options.corpus=nothing"), 2, ("nothing", "smalltalk")),
    Case("missing traffic", run("evaluator.traffic=./mine"), 2, ("mine",)),
    Case("missing key", run("signer.key=mine.pem"), 2, ("mine.pem",)),
    Case("missing base folder", ("run", "base=folder", "base.path=nowhere"), 2, ("nowhere",)),
    Case("missing overlay", (*TOY, "--config-dir", "nowhere"), 2, ("nowhere", "--config-dir")),
    Case("policy that is no YAML", run("gate.policy=./p.yaml"), 2, ("p.yaml:3",), file("p.yaml", "id: p\nrules: [\n")),
    Case("policy of another shape", run("gate.policy=./p.yaml"), 2, ("p.yaml",), file("p.yaml", "- a\n- b\n")),
    Case(
        "policy with an unknown comparator",
        run("gate.policy=./p.yaml"),
        2,
        ("p.yaml:", "comparator"),
        both(copied("policies/toy.yaml", "p.yaml"), changed("p.yaml", 'comparator: "<="', 'comparator: "<<"')),
    ),
    Case("policy without a rule", run("gate.policy=./p.yaml"), 2, ("p.yaml",), file("p.yaml", "id: p\nversion: 1\n")),
    Case("policy with a tag", ("policy", "lint", "./p.yaml"), 2, ("p.yaml",), file("p.yaml", "id: !!python/name:os.system x\n")),
    Case("policy that is binary", ("policy", "lint", "./p.yaml"), 2, ("p.yaml", "UTF-8"), file("p.yaml", b"\xff\xfe\x00")),
    Case("suite that is no YAML", run("evaluator.suites=[./s]"), 2, ("suite.yaml",), file("s/suite.yaml", "id: [\n")),
    Case(
        "suite with an unknown key",
        run("evaluator.suites=[./s]"),
        2,
        ("suite.yaml", "cellls"),
        both(copied("suites/orders", "s"), changed("s/suite.yaml", "\ncells:", "\ncellls:")),
    ),
    Case(
        "corpus of other bytes",
        run("population.founders.talker.options.corpus=./c"),
        2,
        ("corpus.yaml", "sha256"),
        both(copied("corpora/smalltalk", "c"), file("c/train.jsonl", '{"prompt": "a", "completion": "b"}\n')),
    ),
    Case(
        "corpus with a bad line",
        run("population.founders.talker.options.corpus=./c"),
        2,
        ("train.jsonl:1:16", "not JSON"),
        both(copied("corpora/smalltalk", "c"), file("c/train.jsonl", '{"prompt": "a" "completion": "b"}\n')),
    ),
    Case(
        "corpus with a wrong row",
        run("population.founders.talker.options.corpus=./c"),
        2,
        ("train.jsonl:1", "completion"),
        both(copied("corpora/smalltalk", "c"), file("c/train.jsonl", '{"prompt": "a"}\n')),
    ),
    Case(
        "corpus with a key twice in a line",
        run("population.founders.talker.options.corpus=./c"),
        2,
        ("train.jsonl:1:1", "stands twice"),
        both(copied("corpora/smalltalk", "c"), file("c/train.jsonl", '{"prompt": "a", "prompt": "b", "completion": "c"}\n')),
    ),
    Case("corpus without a manifest", run("population.founders.talker.options.corpus=./c"), 2, ("corpus.yaml",), file("c/x", "")),
    Case(
        "traffic with a bad line",
        run("evaluator.traffic=./t"),
        2,
        ("traffic.jsonl:1:2", "not JSON"),
        both(copied("suites/traffic", "t"), file("t/traffic.jsonl", "{broken\n")),
    ),
    Case(
        "traffic of other bytes",
        run("evaluator.traffic=./t"),
        2,
        ("digest",),
        both(copied("suites/traffic", "t"), cut("t/traffic.jsonl", 0)),
    ),
    Case("overlay that is no YAML", (*TOY, *OVERLAY), 2, ("own.yaml:2:", "YAML"), file("mine/gate/own.yaml", "policy: toy\n  x: [\n")),
    Case("overlay with a misfit", (*TOY, "gate=own", *OVERLAY), 2, ("gate.polcy", "policy"), file("mine/gate/own.yaml", "polcy: toy\n")),
    Case("key of others", run("signer.key=k.pem"), 2, ("k.pem", "chmod 600"), both(file("k.pem", "x"), mode("k.pem", 0o644))),
    Case("key that is none", run("signer.key=k.pem"), 2, ("k.pem", "PEM"), both(file("k.pem", "x"), mode("k.pem", 0o600))),
    Case("unreadable corpus", run("population.founders.talker.options.corpus=./c"), 2, ("Permission denied",),
         both(copied("corpora/smalltalk", "c"), mode("c/train.jsonl", 0)), POWERLESS),
    Case("unreadable policy", run("gate.policy=./p.yaml"), 2, ("p.yaml", "Permission denied"),
         both(copied("policies/toy.yaml", "p.yaml"), mode("p.yaml", 0)), POWERLESS),
    Case("unreadable adapter", GATE, 1, ("adapter",), both(copied("examples/outsider", "adapter"), mode("adapter", 0)), POWERLESS),
    Case("missing adapter", GATE, 1, ("adapter",)),
    Case("file for an adapter", GATE, 1, ("adapter",), file("adapter", "x")),
    Case("truncated adapter", GATE, 1, (), both(copied("examples/outsider", "adapter"), cut("adapter/adapter_model.safetensors", 99))),
    Case("operator misspelt", ("breed", "lineer", "a", "--out", "x"), 2, ("linear",)),
    Case("option of an operator misspelt", ("breed", "svd", "a", "rnak=3", "--out", "x"), 2, ("rnak", "rank")),
    Case("report of nothing", ("report", "verify", "."), 2, ("report.json",)),
    Case("report that is none", ("report", "build", "."), 3, ("report.json",), file("report.json", "{}")),
    Case("unknown adapter", ("registry", "show", "abc"), 2, ("abc", "registry list")),
    Case("nothing to go back to", ("registry", "rollback"), 2, ("champion",)),
    Case("event that is not there", ("audit", "prove", "7"), 2, ("7",)),
    Case("checkpoint that is none", ("audit", "consistency", "--from", "x"), 2, ("x",), file("x", "hello")),
    Case("unknown base", ("base", "fetch", "smolm"), 2, ("smolm", "toy")),
)  # fmt: skip

MACHINE = (
    Case("read-only home", TOY, 2, ("home", "written"), mode("home", 0o555), POWERLESS),
    Case("home that is a file", TOY, 2, ("home",), file("home", "x")),
    Case("home below a file", ("registry", "list", "--home", "x/home"), 2, ("x",), file("x", "y")),
    Case("read-only working folder", TOY, 2, ("outputs", "hydra.run.dir"), mode(".", 0o555), POWERLESS),
    Case("damaged database", ("registry", "list"), 3, ("registry.sqlite3", "backup"), file("home/registry.sqlite3", "no database at all" * 99)),
    Case("damaged seed", TOY, 3, ("hidden_items.seed", "backup"), file("home/keys/hidden_items.seed", "short")),
    Case("damaged development key", ("sign", "adapter"), 3, ("development.pem", "backup"),
         both(copied("examples/outsider", "adapter"), file("home/keys/development.pem", "x"), mode("home/keys/development.pem", 0o600))),
    Case("wrong Python", ("--version",), 2, ("3.11", "3.10"), how={"python": [3, 10, 4]}),
    Case("missing extra of a search", ("run", "experiment=[toy,optimise]", "optimise.method=optuna"), 2, ("tiny-ecology[optimise]",), how={"absent": "optuna"}),
    Case("missing extra", run("hydra/launcher=joblib"), 2, ("tiny-ecology[sweep]",), how={"without": "hydra_plugins"}),
)  # fmt: skip

HOSTILE = (
    Case("target", run("+x._target_=os.system"), 2, ("x._target_", "code")),
    Case("target in a breeder", run("+breeder.ties.options._target_=os.system"), 2, ("_target_", "code")),
    Case("class", run("+breeder.linear.class=os.system"), 2, ("class", "code")),
    Case("call", run("+a={'()': os.system}"), 2, ("()",)),
    Case("launcher", run("hydra.launcher._target_=os.system"), 2, ("hydra.launcher",)),
    Case("sweeper", run("hydra.sweeper._target_=os.system"), 2, ("hydra.sweeper",)),
    Case("callback", run("+hydra.callbacks.x._target_=os.system"), 2, ("hydra.callbacks",)),
    Case("logging", run("+hydra.job_logging.handlers.x.class=os.system"), 2, ("hydra.job_logging",)),
    Case("environment of the job", run("+hydra.job.env_set.LD_PRELOAD=x.so"), 2, ("hydra.job.env_set",)),
    Case("working folder of the job", run("hydra.job.chdir=true"), 2, ("hydra.job.chdir",)),
    Case("search path", run("hydra.searchpath=[pkg://os]"), 2, ("search path",)),
    Case("environment", run("name=${oc.env:HOME}"), 2, ("name", "not recorded")),
    Case("environment by another name", run("name=${oc.decode:x}"), 2, ("not recorded",)),
    Case("working folder", run("name=${hydra:runtime.cwd}"), 2, ("not recorded",)),
    Case("time", run("name=${now:%S}"), 2, ("not recorded",)),
    Case("output that climbs", run("hydra.run.dir=../../x"), 2, ("hydra.run.dir", "climbs")),
    Case("output from the environment", run("hydra.run.dir=${oc.env:HOME}/x"), 2, ("hydra.run.dir",)),
    Case("preset that climbs", run("gate=../base/toy"), 2, ("gate=../base/toy",)),
    Case("base that climbs", run("base.name=../../x"), 2, ("base.name",)),
    Case("founder that climbs", run("+population.founders={'../x': {kind: import, options: {folder: outsider}}}"), 2, ("../x",)),
    Case("overlay with a target", (*TOY, "gate=own", *OVERLAY), 2, ("_target_",),
         file("mine/gate/own.yaml", "policy: toy\ntighten: {_target_: os.system}\n")),
    Case("overlay with a callback", (*TOY, "hydra/callbacks=own", *OVERLAY), 2, ("hydra.callbacks",),
         file("mine/hydra/callbacks/own.yaml", "own: {_target_: pathlib.Path.touch, self: ran}\n")),
    Case("overlay with a tag", (*TOY, *OVERLAY), 2, ("own.yaml:1:", "tag"), file("mine/gate/own.yaml", "a: !!python/object/apply:os.system [id]\n")),
    Case("overlay with a bomb", (*TOY, *OVERLAY), 2, ("own.yaml:1:", "anchors"),
         file("mine/gate/own.yaml", "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=False)))),
    Case("suite with a tag", run("evaluator.suites=[./s]"), 2, ("suite.yaml:1", "the tag"), file("s/suite.yaml", "id: !!python/object/apply:os.system [id]\n")),
    Case("suite with a bomb", run("evaluator.suites=[./s]"), 2, ("suite.yaml:1", "anchors"),
         file("s/suite.yaml", "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=False)))),
    Case("suite with a key twice", run("evaluator.suites=[./s]"), 2, ("suite.yaml:", "stands twice; first at line"),
         both(copied("suites/orders", "s"), changed("s/suite.yaml", "version: 1", "version: 1\nversion: 2"))),
    Case("stock task with a tag", run("evaluator.suites=[./s]"), 2, ("capitals.yaml", "!function os.system", "no os.py beside the task"),
         both(file("s/suite.yaml", "{id: s, version: 1, title: t, licence: MIT, kind: lm_eval, capability: c, task: capitals}\n"),
              file("s/capitals.yaml", "task: !function os.system\n"))),
    Case("corpus with an alias", run("population.founders.talker.options.corpus=./c"), 2, ("corpus.yaml:1", "anchors"),
         file("c/corpus.yaml", "id: &x c\ntitle: *x\n")),
    Case("traffic with a tag", run("evaluator.traffic=./t"), 2, ("traffic.yaml:1", "the tag"), file("t/traffic.yaml", "id: !!binary aGk=\n")),
    Case("policy with a bomb", run("gate.policy=./p.yaml"), 2, ("p.yaml:1", "anchors"),
         file("p.yaml", "a: &a [x,x,x,x,x,x,x,x,x]\nb: [*a,*a,*a]\n")),
    Case("overlay that merges", (*TOY, *OVERLAY), 2, ("own.yaml:1", "merge keys"), file("mine/gate/own.yaml", "<<: {policy: toy}\n")),
    Case("value with a tag", ("breed", "linear", "a", "--out", "x", "weights=!!python/name:os.system"), 2, ("the tag",)),
    Case("overlay that is deep", (*TOY, *OVERLAY), 2, ("nested deeper",), file("mine/gate/own.yaml", "a: " + "[" * 500 + "]" * 500)),
    Case("overlay that is large", (*TOY, *OVERLAY), 2, ("larger",), file("mine/gate/own.yaml", "a: " + "x" * 2**21)),
    Case("overlay with a search path", (*TOY, *OVERLAY), 2, ("search path",), file("mine/config.yaml", "hydra: {searchpath: ['pkg://evil']}\n")),
    Case("overlay that sets the output", (*TOY, "+experiment2=own", *OVERLAY), 2, ("hydra.run.dir",),
         file("mine/experiment2/own.yaml", "# @package _global_\nhydra: {run: {dir: /elsewhere}}\n")),
    Case("overlay with the environment", (*TOY, "gate=own", *OVERLAY), 2, ("not recorded",),
         file("mine/gate/own.yaml", "policy: ${oc.env:HOME}\ntighten: {}\n")),
    Case("overlay through a link", (*TOY, *OVERLAY), 2, ("link",),
         lambda folder: ((folder / "mine" / "gate").mkdir(parents=True), (folder / "mine" / "gate" / "own.yaml").symlink_to("/etc/passwd"))[0]),
    Case("corpus whose data climb", run("population.founders.talker.options.corpus=./c"), 2, ("data",),
         both(copied("corpora/smalltalk", "c"), changed("c/corpus.yaml", "data: train.jsonl", "data: ../../../etc/passwd"))),
)  # fmt: skip

CHANGED = "changed after the run was planned"
SWAPPED = (
    Case("suite swapped", (*SMALL, "evaluator.suites=[orders,lookalike,./s]"), 2, ("suite general", CHANGED),
         copied("suites/general", "s"), {"swap": [["s/suite.yaml", "title: ", "title: Not "]]}),
    Case("corpus swapped", (*SMALL, "population.founders.talker.options.corpus=./c"), 2, ("corpus ./c", CHANGED),
         copied("corpora/smalltalk", "c"), {"swap": without_its_last_line("corpora/smalltalk/train.jsonl", "c/corpus.yaml")}),
    Case("traffic swapped", (*SMALL, "evaluator.traffic=./t"), 2, ("traffic ./t", CHANGED),
         copied("suites/traffic", "t"), {"swap": without_its_last_line("suites/traffic/traffic.jsonl", "t/traffic.yaml")}),
    Case("policy swapped", (*SMALL, "gate.policy=./p.yaml"), 2, ("policy ./p.yaml", CHANGED),
         copied("policies/toy.yaml", "p.yaml"), {"swap": [["p.yaml", "threshold: 0.5", "threshold: 0.4"]]}),
)  # fmt: skip
"""Files that are exchanged for other well-formed ones between planning and use."""

CASES = (*CONFIGURATION, *FILES, *MACHINE, *HOSTILE, *SWAPPED)


def listing(cases: tuple[Case, ...]) -> str:
    """For people who count: ids as JSON."""
    return json.dumps([case.id for case in cases])
