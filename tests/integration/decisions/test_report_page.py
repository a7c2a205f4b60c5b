from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from functools import cache
from html.parser import HTMLParser
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from validation.answers import Answers
from validation.checks.gate import confirms, decide, preliminary
from validation.checks.policy import Policy
from validation.checks.verdict import Reason
from validation.reports.comparison import compare, measurements_of
from validation.reports.report_page import MAX_CHANGED, MAX_NEAR_DUPLICATES, MAX_SUSPECTS, render_page, sentence
from validation.reports.report_text import plain

KINDS = ("two", "ten", "hundred", "thousand", "first", "opened", "not_better", "nan", "disputed", "hostile")
VOID = {"meta", "img", "br", "input", "hr", "link"}
LARGEST_PAGE_BYTES = 1_200_000


class Page(HTMLParser):
    """What a browser makes of the page: elements with their attributes, its text, and tags left open or crossed."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.crossed: list[str] = []
        self.text = ""
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if self.open and self.open[-1] == tag:
            self.open.pop()
        else:
            self.crossed.append(f"{self.open[-3:]} closed by {tag}")

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("style", "title"):
            self.text += data

    def named(self, *tags: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag in tags]


read = cache(Page)


@pytest.fixture(scope="session")
def pages(report_samples: ModuleType) -> dict[str, str]:
    """The page of every kind of report."""
    assert set(report_samples.SAMPLES) == set(KINDS)
    return {name: made().page() for name, made in report_samples.SAMPLES.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_needs_no_script_and_no_network(pages: dict[str, str], kind: str) -> None:
    page = read(pages[kind])
    used = {tag for tag, _ in page.elements}
    assert not used & {"script", "link", "iframe", "object", "embed", "form", "base", "use", "image", "foreignobject"}
    assert all(str(image["src"]).startswith("data:image/") for image in page.named("img"))
    attributes = {name for _, found in page.elements for name in found}
    assert not [name for name in attributes if name.startswith("on") or name in {"srcset", "poster", "ping"}]
    assert "url(" not in pages[kind]
    assert "@import" not in pages[kind]
    policies = [meta["content"] for meta in page.named("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert len(policies) == 1
    assert str(policies[0]).startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'")


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_is_well_formed_and_can_be_read_aloud(pages: dict[str, str], kind: str) -> None:
    page = read(pages[kind])
    assert (page.open, page.crossed) == ([], [])
    ids = [str(found["id"]) for _, found in page.elements if "id" in found]
    assert len(ids) == len(set(ids))
    links = [str(link["href"]) for link in page.named("a")]
    assert len(links) >= 8
    assert {link.removeprefix("#") for link in links} <= set(ids)
    referred = [name for _, found in page.elements for name in str(found.get("aria-labelledby") or "").split()]
    assert set(referred) <= set(ids)
    assert all(image.get("alt") for image in page.named("img"))
    assert pages[kind].count("<table") == pages[kind].count("<caption") > 0
    assert all(heading.get("scope") in ("row", "col") for heading in page.named("th"))
    drawn = page.named("svg")
    is_inner = [drawing.get("x") is not None for drawing in drawn]
    assert all(
        inner or drawing.get("aria-hidden") == "true" or drawing.get("role") == "img" or "class" not in drawing
        for drawing, inner in zip(drawn, is_inner, strict=True)
    )
    assert len(page.named("h1")) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_tells_outcome_sentence_and_reasons_in_words(
    report_samples: ModuleType, pages: dict[str, str], kind: str
) -> None:
    sample = report_samples.SAMPLES[kind]()
    text = read(pages[kind]).text
    assert plain(sentence(sample.report, sample.verdict), 400) in text
    assert sample.verdict.outcome.capitalize() in text
    for reason in sample.verdict.reasons:
        assert plain(reason.statement, 900) in text
        said = {"better": "holds", "not better": "fails", "cannot tell": "cannot tell"}[reason.outcome]
        assert f"{reason.check[:1].upper()}{reason.check[1:]}: {said}" in text


def test_the_sentences_say_what_the_outcome_is(report_samples: ModuleType) -> None:
    two, first = report_samples.two(), report_samples.first()
    right, rival = f"{two.report.candidate_accuracy:.1%}", f"{two.report.champion_accuracy:.1%}"
    told = f"{right} right against {rival} on the open photos."
    for outcome, start in {
        "better": "Run 2026-11-20-mobile-v3 is shown to be better than version 2: ",
        "not better": "Run 2026-11-20-mobile-v3 is not better than version 2 in all that the policy demands: ",
        "cannot tell": "These photos do not tell whether run 2026-11-20-mobile-v3 is better than version 2: ",
    }.items():
        said = two.changed(verdict={"outcome": outcome})
        assert sentence(said.report, said.verdict) == start + told
        alone = first.changed(verdict={"outcome": outcome})
        assert "a first model" in sentence(alone.report, alone.verdict)
    whole = two.changed(report={"scope": "all"})
    assert "open" not in sentence(whole.report, whole.verdict)


def test_names_from_outside_are_shown_and_not_executed(pages: dict[str, str], report_samples: ModuleType) -> None:
    page, source = read(pages["hostile"]), pages["hostile"]
    assert "<script" not in source
    assert "<img src=x" not in source
    assert "&lt;script&gt;" in source
    assert "\\u202egnp.exe\\u202c" in page.text
    assert "line\\none\\u001b[31m" in page.text
    assert "{{ 7 * 7 }}" in page.text
    assert not re.search("[\u202a-\u202e\u2066-\u2069\x00-\x08\x0b-\x1f]", source)
    assert "x" * 200 not in page.text
    lineage = report_samples.two().report.lineage
    mallory = report_samples.two().changed(
        report={
            "run_id": "<b>run</b>",
            "model": "<i>model</i>",
            "lineage": lineage.model_copy(update={"trained_by": "<u>mallory</u>", "code_commit": "<s>"}),
        }
    )
    shown = mallory.page()
    assert not re.search(r"<(b>run|i>model|u>mallory|s>)", shown)
    assert "&lt;b&gt;run&lt;/b&gt;" in shown


def test_a_page_stays_small_whatever_the_report_holds(report_samples: ModuleType, pages: dict[str, str]) -> None:
    assert max(len(page.encode()) for page in pages.values()) < LARGEST_PAGE_BYTES
    sample = report_samples.build(
        tuple(f"{'very ' * 300}{index}" for index in range(20)),
        photos=900,
        sealed=100,
        skill=(0.0, -0.2),
        source="noise",
    )
    reason = Reason(check="c" * 500, outcome="not better", statement="figures " * 2_000)
    report = sample.report
    huge = sample.changed(
        report={
            "suspects": report.suspects * 60,
            "near_duplicates": report.near_duplicates * 60,
            "slices": tuple(
                row.model_copy(update={"column": f"{row.column} {index}"})
                for index in range(60)
                for row in report.slices
            ),
        },
        verdict={"reasons": (reason,) * 1_000},
    ).page()
    assert len(huge.encode()) < LARGEST_PAGE_BYTES
    assert huge.count("<img") <= 2 * MAX_CHANGED + MAX_SUSPECTS + MAX_NEAR_DUPLICATES
    assert "and 960 more in verdict.json" in huge


def test_photos_are_shown_small_and_freshly_encoded_and_a_broken_one_is_told(
    report_samples: ModuleType, pages: dict[str, str]
) -> None:
    sources = [str(image["src"]) for image in read(pages["ten"]).named("img")]
    shown = min(MAX_CHANGED, len(report_samples.ten().report.fixed))
    assert len(sources) > shown > 5
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    broken = report_samples.build(("cat", "dog"), photos=60, sealed=60, source="broken", skill=(0.9, 0.5)).page()
    assert "<img" not in broken
    assert "cannot be shown" in broken


def test_which_photos_decide_and_what_is_left_is_told(pages: dict[str, str], report_samples: ModuleType) -> None:
    better = read(pages["two"]).text
    assert "of the 200 photos of the holdout that are open. The other 1,800 photos are sealed" in better
    assert "Try 4 asked the 1,800 sealed photos one question" in better
    assert "at level 0.0025 (a candidate that is not better passes at most one time in 400)" in better
    assert "6 tries are left before a new holdout is needed." in better
    opened = read(pages["opened"]).text
    assert "the holdout is opened: it decides nothing any more" in opened
    assert "none is sealed any more" in opened
    free = read(pages["not_better"]).text
    assert "nothing of the budget was spent" in free
    assert "lets one holdout decide about 10 candidates" in free
    last = report_samples.two()
    use = last.verdict.budget.model_copy(update={"tries_left": 1})
    assert "1 try is left" in read(last.changed(verdict={"budget": use}).page()).text


def test_labels_to_bring_and_flips_stand_at_the_head(report_samples: ModuleType) -> None:
    undecided = report_samples.ten()
    reasons = (
        Reason(check="a", outcome="cannot tell", statement="a.", more_labels=900),
        Reason(check="b", outcome="cannot tell", statement="b.", more_labels=40, label="cat"),
        Reason(check="c", outcome="cannot tell", statement="c.", more_labels=70, label="cat"),
        Reason(check="d", outcome="cannot tell", statement="d.", more_labels=300, slice="device = phone"),
    )
    head = read(undecided.changed(verdict={"reasons": reasons}).page().split("</header>")[0]).text
    wanted = "about 900 in all; about 300 of device = phone; about 70 of cat."
    assert wanted in " ".join(head.split())
    several = tuple(
        Reason(check="e", outcome="cannot tell", statement="e.", more_labels=9, label=f"l{at}") for at in range(11)
    )
    assert "; and of 3 more classes or slices" in undecided.changed(verdict={"reasons": several}).page()
    disputed = read(report_samples.disputed().page()).text
    assert "Disputed labels change the outcome." in disputed
    assert "a person must settle these labels first" in disputed
    assert "The labels seem to be in another order." in disputed
    assert "right on 91.3% of the photos instead of" in disputed


def test_what_was_not_measured_is_said(pages: dict[str, str]) -> None:
    text = " ".join(read(pages["nan"]).text.split())
    assert "400 photos answered with NaN or infinity" in text
    assert "the same for every photo" in text
    assert "The training photos were not at hand, so nothing was compared. Whether some look alike" in text
    assert "not recorded" in text
    first = " ".join(read(pages["first"]).text.split())
    assert "there is no champion to compare with" in first
    assert "What changes for users" not in first
    assert "version 2" not in first


def test_many_classes_are_told_by_a_picture_and_lists(pages: dict[str, str]) -> None:
    hundred = read(pages["hundred"])
    assert "What is confused most" in hundred.text
    assert len([image for image in hundred.named("img") if str(image["src"]).startswith("data:image/png")]) == 3
    thousand = read(pages["thousand"])
    assert "What changed most" in thousand.text
    assert "data:image/png" not in pages["thousand"]
    assert "Candidate minus champion" in read(pages["ten"]).text
    assert re.search(r"No open photo shows \d+ classes", " ".join(thousand.text.split()))


def test_what_the_gate_decides_can_be_shown(
    make_answers: Callable[..., Answers], make_policy: Callable[..., Policy], report_samples: ModuleType, now: datetime
) -> None:
    random = np.random.default_rng(3)
    right = random.random((2, 600)) < [[0.9], [0.8]]
    answers = make_answers(right[0], right[1], labels=("cat", "dog"), is_open=np.arange(600) % 6 == 0)
    policy = make_policy()
    sample = report_samples.two()
    measured = {
        name: model.model_copy(
            update=measurements_of(
                answers.truth[answers.is_open], scores[answers.is_open], labels=answers.labels, policy=policy
            )
        )
        for name, model, scores in (
            ("candidate", sample.report.candidate, answers.candidate),
            ("champion", sample.report.champion, answers.champion),
        )
    }
    compared = compare(answers, policy=policy, scope="open")
    report = sample.report.model_copy(update={**compared, **measured, "slices": ()})
    known = preliminary(report, answers, policy=policy, fresh_level=0.02)
    confirmed = confirms(answers, policy=policy, level=0.01)
    budget = sample.verdict.budget.model_copy(update={"is_confirmed": confirmed, "sealed_photos": 500, "level": 0.01})
    verdict = decide(report, policy=policy, preliminary=known, budget=budget, decided_at=now)
    page = render_page(report, verdict, policy=policy, holdout=sample.holdout, decoder=report_samples.Decoder())
    text = " ".join(read(page).text.split())
    assert confirmed
    assert "is shown to be better than version 2" in text
    assert "Try 4 asked the 500 sealed photos one question" in text
    assert "Every figure and picture here is of the 100 photos" in text
    assert all(plain(reason.statement, 900) in text for reason in verdict.reasons)
    assert "Calibration as a table" in text


def test_the_template_refuses_a_field_that_is_missing(report_samples: ModuleType) -> None:
    sample = report_samples.two()
    without: Any = sample.verdict.model_copy()
    object.__delattr__(without, "decided_at")
    with pytest.raises(Exception, match="decided_at"):
        render_page(
            sample.report, without, policy=sample.policy, holdout=sample.holdout, decoder=report_samples.Decoder()
        )
