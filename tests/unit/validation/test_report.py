from __future__ import annotations

import html
import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from artifact_sync.labelled_photo import LabelledPhoto
from validation.gate import judge
from validation.holdout import Holdout, PhotoDecoder, freeze_holdout
from validation.policy import Policy
from validation.report import Report, compare
from validation.report_figures import confusion_matrices, forest_plot
from validation.report_page import render_page, sentence, thumbnails

Paired = Callable[..., tuple[NDArray[np.bool_], NDArray[np.bool_]]]
MakeReport = Callable[..., Report]
MakePolicy = Callable[..., Policy]


@pytest.fixture
def holdout(tmp_path: Path, photos: Callable[..., list[LabelledPhoto]], decoder: PhotoDecoder) -> Holdout:
    return freeze_holdout(photos(40), labels=("cat", "dog"), out_dir=tmp_path / "holdout", decoder=decoder)


def page_of(report: Report, policy: Policy, holdout: Holdout, decoder: PhotoDecoder, now: datetime) -> str:
    verdict = judge(report, policy=policy, decided_at=now)
    return render_page(report, verdict, policy=policy, holdout=holdout, decoder=decoder)


def test_a_report_is_the_same_after_a_round_trip(make_report: MakeReport, paired_right: Paired) -> None:
    report = make_report(*paired_right(60, fixed=4, broken=3))
    assert Report.from_json(report.to_json()) == report
    assert make_report(np.ones(20, dtype=bool), None).paired is None


def test_what_changed_is_counted_and_named(holdout: Holdout) -> None:
    truth = holdout.truth
    right = np.eye(2, dtype=np.float32)[truth]
    candidate, champion = right.copy(), right.copy()
    candidate[0] = right[0][::-1]
    candidate[1] = np.nan
    champion[2] = right[2][::-1]
    fields: dict[str, Any] = compare(holdout, candidate=candidate, champion=champion)
    assert (fields["paired"].candidate_only, fields["paired"].champion_only) == (1, 2)
    assert [photo.sha256 for photo in fields["fixed"]] == [holdout.record.items[2].sha256]
    broken, nan = fields["broken"]
    assert (broken.champion_answer, nan.candidate_answer) == (broken.label, None)
    assert broken.candidate_answer not in (None, broken.label)
    assert sum(row.n for row in fields["classes"]) == 40
    assert sum(row.paired.champion_only for row in fields["classes"]) == 2


def test_the_forest_plot_goes_from_worst_to_best_around_no_difference(
    make_report: MakeReport, paired_right: Paired
) -> None:
    plot = forest_plot(make_report(*paired_right(200, fixed=30, broken=4), labels=("cat", "dog", "fox")))
    assert plot.is_gain
    assert plot.line_at == 50.0
    points = [row.point for row in plot.rows]
    assert points == sorted(points)
    assert all(0 <= row.low_at <= row.point_at <= row.high_at <= 100 for row in plot.rows)
    first = forest_plot(make_report(np.arange(100) % 4 != 0, None))
    assert (first.is_gain, first.start, first.end, first.line_at) == (False, 0.0, 1.0, 75.0)


def test_the_difference_of_the_matrices_is_candidate_minus_champion(
    make_report: MakeReport, paired_right: Paired
) -> None:
    report = make_report(*paired_right(100, fixed=10, broken=4))
    difference, candidate, champion = confusion_matrices(report)
    assert (difference.counts == candidate.counts - champion.counts).all()
    assert np.trace(difference.counts) == 6
    labels = tuple(f"class-{index:02}" for index in range(21))
    assert confusion_matrices(make_report(np.ones(42, dtype=bool), None, labels=labels)) == ()


def test_the_page_opens_without_network_or_script(
    make_report: MakeReport,
    make_policy: MakePolicy,
    paired_right: Paired,
    holdout: Holdout,
    decoder: PhotoDecoder,
    now: datetime,
) -> None:
    page = page_of(make_report(*paired_right(500, fixed=40, broken=9)), make_policy(), holdout, decoder, now)
    assert "<script" not in page
    assert not re.search(r"""(src|href)\s*=\s*["'](?!data:)""", page)
    assert "url(" not in page
    assert "default-src 'none'" in page
    assert "Run run-7c1f is shown to be better than version 2: 98.2% right against 92.0%." in page


def test_each_outcome_has_its_sentence_and_each_reason_its_line(
    make_report: MakeReport,
    make_policy: MakePolicy,
    paired_right: Paired,
    holdout: Holdout,
    decoder: PhotoDecoder,
    now: datetime,
) -> None:
    cases = {"better": (40, 9), "not better": (9, 40), "cannot tell": (9, 6)}
    for outcome, (fixed, broken) in cases.items():
        report = make_report(*paired_right(300, fixed=fixed, broken=broken))
        verdict = judge(report, policy=make_policy(), decided_at=now)
        assert verdict.outcome == outcome
        page = render_page(report, verdict, policy=make_policy(), holdout=holdout, decoder=decoder)
        text = html.unescape(page)
        assert sentence(report, verdict) in text
        assert all(reason.statement in text for reason in verdict.reasons)
    first = make_report(np.ones(300, dtype=bool), None)
    assert "a first model" in page_of(first, make_policy(floor=0.9), holdout, decoder, now)


def test_names_from_outside_are_shown_and_not_executed(
    make_report: MakeReport,
    make_policy: MakePolicy,
    paired_right: Paired,
    holdout: Holdout,
    decoder: PhotoDecoder,
    now: datetime,
) -> None:
    labels = ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>')
    page = page_of(
        make_report(*paired_right(100, fixed=10, broken=4), labels=labels), make_policy(), holdout, decoder, now
    )
    assert "<script" not in page
    assert "<img src=x" not in page
    assert "&lt;script&gt;" in page


def test_changed_photos_are_shown_small_and_freshly_encoded(
    holdout: Holdout, decoder: PhotoDecoder, make_report: MakeReport
) -> None:
    truth = holdout.truth
    right = np.eye(2, dtype=np.float32)[truth]
    fields: dict[str, Any] = compare(holdout, candidate=right, champion=right[:, ::-1])
    shown = thumbnails(fields["fixed"], holdout=holdout, decoder=decoder, limit=3)
    assert len(shown) == 3
    assert all(thumbnail.url is not None and thumbnail.url.startswith("data:image/jpeg;base64,") for thumbnail in shown)


def test_many_classes_are_told_by_their_most_frequent_confusions(
    make_report: MakeReport, make_policy: MakePolicy, holdout: Holdout, decoder: PhotoDecoder, now: datetime
) -> None:
    labels = tuple(f"class-{index:02}" for index in range(30))
    report = make_report(np.arange(300) % 7 != 0, None, labels=labels)
    page = page_of(report, make_policy(floor=0.1), holdout, decoder, now)
    assert "most frequent ones" in page
    assert 'class="matrix"' not in page


def test_very_many_classes_are_shown_by_the_worst_and_the_best(make_report: MakeReport) -> None:
    labels = tuple(f"class-{index:03}" for index in range(100))
    right = np.arange(1000) // 100 * 100 < np.arange(1000) % 100 * 10
    plot = forest_plot(make_report(right, None, labels=labels))
    assert (len(plot.rows), plot.hidden) == (60, 40)
    assert plot.rows[0].point == 0.0
    assert plot.rows[-1].point == 1.0
