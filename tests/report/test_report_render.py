"""Every format of one hand-made report, byte for byte, and what no format may ever hold."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import html.parser
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecology.contracts.identity import Digest
from ecology.contracts.policy import Outcome
from ecology.contracts.promotion import Promotion, Revocation
from ecology.contracts.run import RunReport
from ecology.errors import ConfigError, IntegrityError
from ecology.kernel.canonical import canonical, plain
from ecology.report import texts
from ecology.report.html import render_html
from ecology.report.json_report import SCHEMA_FILE, parse_report, read_report, render_json
from ecology.report.junit import render_junit
from ecology.report.markdown import escape, render_markdown
from ecology.report.schema import report_schema
from ecology.report.story import tell
from ecology.report.words import between, duration, quantity, size, visible

Golden = Callable[[str, bytes], None]
RENDERERS = {
    "report.json": render_json,
    "report.html": render_html,
    "report.md": render_markdown,
    "junit.xml": render_junit,
}


@pytest.mark.parametrize("name", RENDERERS)
def test_golden(name: str, report: RunReport, golden: Golden) -> None:
    data = RENDERERS[name](report)
    assert data == RENDERERS[name](report)
    golden(f"report/{name}", data)


def test_golden_summary(report: RunReport, golden: Golden) -> None:
    golden("report/summary.txt", texts.summary_table(report).encode())


def test_the_shipped_schema_is_the_one_of_the_types(golden: Golden) -> None:
    schema = report_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert json.loads(SCHEMA_FILE.read_text(encoding="utf-8")) == schema, "write report_schema() to report.schema.json"


def test_json_comes_back_as_it_was(report: RunReport, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_bytes(render_json(report))
    again = read_report(path)
    assert render_json(again) == render_json(report)
    assert [c.verdict for c in again.candidates] == [c.verdict for c in report.candidates]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: b"",
        lambda data: b"[]",
        lambda data: b"[" * 100_000,
        lambda data: data + b"\n",
        lambda data: data.replace(b'"seed_commitment":"sha256:', b'"seed_commitment":"sha512:'),
        lambda data: data.replace(b'"development_key":true', b'"development_key":1'),
        lambda data: data.replace(b'"base":"smollm2-135m"', b'"base":"smollm2-135m","extra":1'),
        lambda data: data.replace(b'"generation":1', b'"generation":1.5', 1),
    ],
)
def test_a_damaged_report_is_an_integrity_error(spoil: Callable[[bytes], bytes], report: RunReport) -> None:
    with pytest.raises(IntegrityError):
        parse_report(spoil(render_json(report)))


def test_what_does_not_fit_is_not_written(report: RunReport, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        render_json(dataclasses.replace(report, run="no digest"))  # type: ignore[arg-type]
    with pytest.raises(IntegrityError, match="cannot be read"):
        read_report(tmp_path / "nothing.json")


class Page(html.parser.HTMLParser):
    """What a browser would make of it."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(data.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data if not self.open or self.open[-1] != "style" else ""


def test_the_page_is_self_contained_and_escapes(report: RunReport) -> None:
    data = render_html(report)
    page = Page(data)
    assert page.open == []
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "link", "img", "iframe", "object", "base", "form"}
    for _, attributes in page.tags:
        assert "style" not in attributes
        assert not [name for name in attributes if name.startswith("on")]
        assert (attributes.get("href") or "#").startswith("#")
        assert "src" not in attributes
    assert b"url(" not in data
    assert b"@import" not in data
    assert b"<script" not in data
    assert "<script>alert(1)</script>" in page.text
    assert "\u202e" not in data.decode()
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {a["href"][1:] for _, a in page.tags if (a.get("href") or "").startswith("#")} <= set(ids)  # type: ignore[index]
    for tag, attributes in page.tags:
        if tag == "svg":
            assert attributes.get("aria-hidden") == "true" or attributes.get("aria-label")


def test_the_content_policy_allows_the_page_s_own_style_only(report: RunReport) -> None:
    data = render_html(report).decode()
    style = re.search("<style>(.*?)</style>", data, re.DOTALL)
    assert style
    hashed = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'sha256-{hashed}'" in data.replace("&#39;", "'")


@pytest.mark.parametrize("name", ["report.html", "report.md", "junit.xml", "report.json"])
def test_the_decision_and_the_key_are_in_every_reader_s_format(name: str, report: RunReport) -> None:
    text = RENDERERS[name](report).decode()
    if name in {"report.html", "report.md"}:
        assert "linear-2 was promoted to champion" in text.replace("\\", "")
        assert "evelopment key" in text
        assert "ecology report verify" in text
        assert "ecology audit verify" in text
    assert not re.search(r"(?<!\\)<script", text) or name == "report.json"


def test_markdown_holds_no_live_html_or_mention(report: RunReport) -> None:
    text = render_markdown(report).decode()
    lines = [line for line in text.split("\n") if line.startswith("|")]
    for line in lines:
        assert not re.search(r"(?<!\\)<(?!br>)", line)
    assert escape("a|b <i>@me `c` [x](y) https://z") == r"a\|b \<i\>\@me \`c\` \[x\](y) https:\//z"
    tables = [len(re.findall(r"(?<!\\)\|", line)) for line in lines]
    assert min(tables) > 3


def test_junit_counts(report: RunReport) -> None:
    root = ET.fromstring(render_junit(report))
    assert len(root) == len(report.candidates)
    winner = next(suite for suite in root if suite.get("name") == "linear-2")
    assert (winner.get("tests"), winner.get("failures"), winner.get("skipped")) == ("11", "0", "0")
    assert winner.find(".//system-out") is not None
    outsider = next(suite for suite in root if "script" in suite.get("name", ""))
    assert (outsider.get("failures"), outsider.get("skipped")) == ("1", "8")
    assert int(root.get("failures", "0")) == sum(
        f.outcome in {Outcome.DENY, Outcome.INCONCLUSIVE} and not f.reason.startswith("not asked")
        for c in report.candidates
        for f in c.verdict.findings
    )


@pytest.mark.parametrize(
    ("decision", "words"),
    [
        ("held", "The champion stays the bare base (smollm2-135m): why."),
        ("none", "Nothing was promoted and the champion stays the bare base (smollm2-135m): why."),
        ("rolled_back", "linear-2 was rolled back and the champion stays the bare base (smollm2-135m): why."),
    ],
)
def test_the_sentence_of_each_decision(decision: str, words: str, report: RunReport) -> None:
    base = report.identity.base_weights
    made = Promotion(decision, "champion", base, base, "why")  # type: ignore[arg-type]
    canary = report.canary if decision == "rolled_back" else None
    changed = dataclasses.replace(report, decision=made, canary=canary)
    assert tell(changed).sentence == words
    for render in RENDERERS.values():
        assert render(changed)
    assert words in texts.summary_table(changed)


def test_a_run_without_anybody_can_be_told(report: RunReport) -> None:
    base = report.identity.base_weights
    empty = dataclasses.replace(
        report,
        candidates=(),
        canary=None,
        base_evidence=(),
        stages=(),
        decision=Promotion("none", "champion", base, base, "nobody came"),
    )
    for render in RENDERERS.values():
        assert render(empty)
    assert "nobody came" in texts.summary_table(empty)


def test_rows_tell_who_did_what(report: RunReport) -> None:
    story = tell(report)
    assert [row.name for row in story.rows[:1]] == ["smollm2-135m"]
    assert [row.status for row in story.rows if row.group == "child"][:3] == ["Promoted", "Admitted", "Not proven"]
    json_row = next(row for row in story.rows if row.name == "json")
    assert json_row.cells[1] is not None
    assert json_row.cells[1].reference
    assert json_row.cells[1].tone == "good"
    assert any("stopped at the screen rung" in sentence for sentence in story.unmeasured)
    assert "expired" in texts.waivers(report)[0]


@settings(max_examples=100)
@given(st.text(max_size=30))
def test_visible_text_can_be_seen_and_printed(text: str) -> None:
    shown = visible(text)
    assert shown.isprintable()
    assert visible(shown) == shown
    shown.encode()


def test_quantities() -> None:
    assert quantity(0.935, "share") == "93.5 %"
    assert quantity(-0.015, "points") == "−1.5 pp"
    assert quantity(1.04, "ratio") == "1.04 ×"
    assert quantity(3.0, "count") == "3"
    assert quantity(5.0, "nats") == "5 nats"
    assert (size(512), size(3_711_240), size(2**30)) == ("512 B", "3.5 MiB", "1 GiB")
    assert (duration(8.24), duration(200), duration(3900)) == ("8.2 s", "3 min 20 s", "1 h 05 min")
    assert between(0.9, 0.96, "share") == "90.0 to 96.0 %"
    assert between(None, 0.9, "share") == "at most 90.0 %"
    assert between(None, None, "share") == ""
    assert between(2**10, 2**20, "bytes") == "1 KiB to 1 MiB"


def test_every_form_says_what_is_revoked(report: RunReport) -> None:
    gone = Revocation(Digest("sha256:" + "e" * 64), "it leaks <names>", "2026-11-22T10:00:00Z")
    after = dataclasses.replace(report, revoked=(gone,))
    page, text = render_html(after).decode(), render_markdown(after).decode()
    assert "Revoked in this home" in page
    assert f"Quarantined: {gone.subject}: it leaks &lt;names&gt;." in page
    assert 'href="#revoked"' in page
    assert "Revoked in this home" in text
    assert gone.subject in text
    assert json.loads(canonical(after))["revoked"] == [plain(gone)]
    before = render_html(report).decode()
    assert "Revoked in this home" not in before
    assert 'href="#revoked"' not in before
