from __future__ import annotations

import base64
import io
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from validation.checks.policy import Policy
from validation.checks.verdict import Reason
from validation.reports.report import Report, RiskPoint
from validation.reports.report_charts import LEFT, SIZE, TOP, calibration_chart, risk_chart
from validation.reports.report_figures import MAX_FOREST_ROWS, MAX_SLICE_ROWS, class_forest, slice_forests
from validation.reports.report_limits import limit_rows
from validation.reports.report_matrices import changed_confusions, confusion_matrices, draw, frequent_confusions
from validation.reports.report_metrics import metric_rows
from validation.reports.report_summary import drawn_tries, reason_groups, suspects_sentence
from validation.reports.report_text import bytes_text, counted, percent, plain, points, signed


def test_the_forest_of_classes_goes_from_worst_to_best_around_no_difference(report_samples: ModuleType) -> None:
    sample = report_samples.ten()
    plot = class_forest(sample.report, policy=sample.policy, verdict=sample.verdict)
    assert (plot.is_gain, plot.line_at, plot.start) == (True, 50.0, -plot.end)
    values = [row.point for row in plot.rows]
    assert values == sorted(values)
    assert len(values) == 10
    assert all(0 <= row.low_at <= row.point_at <= row.high_at <= 100 for row in plot.rows)
    assert (plot.margin, plot.floor) == (0.05, 0.6)
    assert plot.margin_at == round(50 - 50 * 0.05 / plot.end, 2)
    worst = sample.verdict.reasons[1].label
    assert {row.name: row.judged for row in plot.rows if row.judged} == {worst: "cannot tell"}


def test_without_a_champion_the_forest_shows_shares_and_floors(report_samples: ModuleType) -> None:
    sample = report_samples.first()
    plot = class_forest(sample.report, policy=sample.policy, verdict=sample.verdict)
    assert (plot.is_gain, plot.end, plot.margin_at) == (False, 1.0, None)
    assert plot.start <= 0.6 <= sample.report.candidate_accuracy
    assert plot.line_at == pytest.approx(
        100 * (sample.report.candidate_accuracy - plot.start) / (1 - plot.start), abs=0.01
    )
    assert {row.floor_at for row in plot.rows} == {round(100 * (0.6 - plot.start) / (1 - plot.start), 2)}
    assert all(row.fixed is None for row in plot.rows)


def test_an_interval_that_leaves_the_plot_is_cut_and_marked(report_samples: ModuleType) -> None:
    sample = report_samples.ten()
    classes = list(sample.report.classes)
    classes[3] = classes[3].model_copy(update={"gain_interval": (-0.99, 0.98)})
    plot = class_forest(
        sample.report.model_copy(update={"classes": tuple(classes)}), policy=sample.policy, verdict=sample.verdict
    )
    wide = next(row for row in plot.rows if row.name == classes[3].label)
    assert plot.end < 0.98
    assert (wide.low_at, wide.high_at, wide.is_cut_low, wide.is_cut_high) == (0.0, 100.0, True, True)
    assert (wide.low, wide.high) == (-0.99, 0.98)


def test_very_many_classes_are_shown_by_the_worst_and_the_best(report_samples: ModuleType) -> None:
    sample = report_samples.thousand()
    plot = class_forest(sample.report, policy=sample.policy, verdict=sample.verdict)
    seen = [row for row in sample.report.classes if row.n]
    assert len(plot.rows) == MAX_FOREST_ROWS
    assert plot.hidden == len(seen) - MAX_FOREST_ROWS
    assert set(plot.unseen) == {row.label for row in sample.report.classes} - {row.label for row in seen}
    gains = [row.paired.gain for row in seen if row.paired]
    assert (plot.rows[0].point, plot.rows[-1].point) == (min(gains), max(gains))


def test_each_slice_column_has_a_forest_with_its_worst_values(report_samples: ModuleType) -> None:
    sample = report_samples.ten()
    reasons = (Reason(check="s", outcome="not better", statement="s.", slice="device = phone"), *sample.verdict.reasons)
    device, site = slice_forests(
        sample.report, policy=sample.policy, verdict=sample.verdict.model_copy(update={"reasons": reasons})
    )
    assert (device.title, site.title) == ("device", "site")
    assert {row.name: row.judged for row in device.rows} == {
        "phone": "not better",
        "tablet": None,
        "inspection camera": None,
    }
    assert (device.margin, device.floor) == (0.04, None)
    many = tuple(
        sample.report.slices[0].model_copy(update={"value": f"site {index:02}", "n": 10 + index}) for index in range(50)
    )
    (crowded,) = slice_forests(
        sample.report.model_copy(update={"slices": many}), policy=sample.policy, verdict=sample.verdict
    )
    assert (len(crowded.rows), crowded.hidden) == (MAX_SLICE_ROWS, 50 - MAX_SLICE_ROWS)


def test_the_difference_of_the_matrices_is_candidate_minus_champion(report_samples: ModuleType) -> None:
    report = report_samples.ten().report
    difference, candidate, champion = confusion_matrices(report)
    assert (difference.counts == candidate.counts - champion.counts).all()
    assert difference.is_difference
    assert np.trace(difference.counts) == report.paired.candidate_only - report.paired.champion_only
    assert difference.answers == report.labels
    assert len(confusion_matrices(report_samples.first().report)) == 1


def test_photos_without_an_answer_have_a_column(report_samples: ModuleType) -> None:
    report = report_samples.nan().report
    difference, candidate, champion = confusion_matrices(report)
    assert candidate.answers == difference.answers == champion.answers == (*report.labels, "no answer")
    assert candidate.counts[:, -1].sum() == report.photos
    assert frequent_confusions(report)[0].answer == "no answer"


def test_a_drawn_matrix_is_green_where_it_got_better(report_samples: ModuleType) -> None:
    report = report_samples.hundred().report
    matrix = confusion_matrices(report)[0]
    picture = draw(matrix)
    data = base64.b64decode(picture.url.removeprefix("data:image/png;base64,"))
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGBA")).astype(int)
    assert pixels.shape == (*matrix.counts.shape, 4)
    assert ((pixels[..., 3] > 0) == (matrix.counts != 0)).all()
    is_green = pixels[..., 1] > pixels[..., 0]
    on_diagonal = np.eye(*matrix.counts.shape, dtype=bool)
    is_better = np.where(on_diagonal, matrix.counts > 0, matrix.counts < 0)
    assert (is_green == is_better)[matrix.counts != 0].all()


def test_confusions_are_listed_by_number_and_by_change(report_samples: ModuleType) -> None:
    report = report_samples.hundred().report
    frequent, changed = frequent_confusions(report), changed_confusions(report)
    counts = [one.candidate for one in frequent]
    assert counts == sorted(counts, reverse=True)
    changes = [abs(one.change) for one in changed]
    assert changes == sorted(changes, reverse=True)
    assert all(one.truth != one.answer for one in (*frequent, *changed))
    assert changed_confusions(report_samples.first().report) == ()


def test_charts_stay_in_their_square_and_repeat_their_figures_in_a_table(report_samples: ModuleType) -> None:
    report = report_samples.opened().report
    for chart in (calibration_chart(report), risk_chart(report)):
        assert chart is not None
        assert [line.model for line in chart.lines] == ["Candidate", "Champion"]
        for line in chart.lines:
            places = np.array([place.split(",") for place in line.points.split()], dtype=float)
            assert len(places) <= 165
            assert (places >= [LEFT, TOP]).all()
            assert (places <= [LEFT + SIZE, TOP + SIZE]).all()
        assert all(len(row) == len(chart.headings) for row in chart.rows)
    risks = risk_chart(report)
    assert risks is not None
    assert risks.rows[-1] == (
        "100%",
        f"{1 - report.candidate_accuracy:.2%}",
        f"{1 - report.champion_accuracy:.2%}",
    )
    bare = report.model_copy(
        update={
            "champion": None,
            "candidate": report.candidate.model_copy(update={"calibration": (), "risk_coverage": ()}),
        }
    )
    assert (calibration_chart(bare), risk_chart(bare)) == (None, None)


def test_the_risk_of_a_few_photos_does_not_set_the_scale(report_samples: ModuleType) -> None:
    report = report_samples.ten().report
    curve = (RiskPoint(coverage=0.01, risk=1.0), RiskPoint(coverage=0.5, risk=0.03), RiskPoint(coverage=1.0, risk=0.04))
    candidate = report.candidate.model_copy(update={"risk_coverage": curve})
    chart = risk_chart(report.model_copy(update={"candidate": candidate, "champion": None}))
    assert chart is not None
    assert chart.top == 0.05
    assert chart.lines[0].points.split()[0].split(",")[1] == f"{TOP:g}"


def test_limits_are_held_against_the_policy_and_absent_ones_are_not(report_samples: ModuleType) -> None:
    sample = report_samples.not_better()
    rows = {row.name: row for row in limit_rows(sample.report, policy=sample.policy)}
    held = {name: row.holds for name, row in rows.items()}
    assert held == {
        "Size": False,
        "Time to load": True,
        "Memory of the server": True,
        "One photo, half within": True,
        "One photo, 95% within": False,
        "One photo, 99% within": None,
        "95% time against the champion's": True,
        "Photos without a finite answer": True,
    }
    size = rows["Size"]
    assert (size.limit, [bar.text for bar in size.bars]) == ("30.0 MB", ["41.9 MB", "35.7 MB"])
    assert size.limit_at is not None
    assert size.limit_at < size.bars[0].length <= 100
    nan = limit_rows(report_samples.nan().report, policy=sample.policy)[-1]
    assert (nan.holds, nan.bars[0].text) == (False, "100.00%")
    free = Policy.model_validate({"accuracy": sample.policy.accuracy.model_dump()})
    bare: Report = sample.report.model_copy(update={"memory_bytes": None, "champion": None})
    unlimited = {row.name: row.limit for row in limit_rows(bare, policy=free)}
    assert "Memory of the server" not in unlimited
    assert set(unlimited.values()) == {None, "0.00%"}


def test_metrics_say_direction_demand_and_what_was_not_compared(report_samples: ModuleType) -> None:
    sample = report_samples.ten()
    rows = {row.name: row for row in metric_rows(sample.report, policy=sample.policy)}
    assert list(rows)[:3] == ["Accuracy", "Macro F1", "Balanced accuracy"]
    assert rows["Accuracy"].demand == "better than the champion, at least 80.0%"
    assert rows["Log loss"].demand == "at most 0.02 worse"
    assert rows["Mean cost of an answer"].demand == "at most 0.1 worse, at most 2"
    assert [name for name, row in rows.items() if row.less_is_better] == [
        "Log loss",
        "Mean cost of an answer",
        "Calibration error",
    ]
    loss = rows["Log loss"]
    assert loss.gain == pytest.approx(loss.champion - loss.candidate)
    assert 0 <= loss.low_at < loss.point_at < loss.high_at <= 100
    assert (rows["Calibration error"].gain, rows["Calibration error"].interval) == (None, None)
    first = report_samples.first()
    assert {row.gain for row in metric_rows(first.report, policy=first.policy)} == {None}
    assert metric_rows(first.report, policy=first.policy)[0].demand == "at least 80.0%"


def test_reasons_are_grouped_by_weight_and_cut(report_samples: ModuleType) -> None:
    verdict = report_samples.two().verdict
    made: list[Any] = [
        Reason(check=f"{outcome} {index}", outcome=outcome, statement="s.")
        for outcome, count in (("better", 3), ("cannot tell", 1), ("not better", 90))
        for index in range(count)
    ]
    groups = reason_groups(verdict.model_copy(update={"reasons": tuple(made)}))
    assert [(group.title, group.total, group.hidden) for group in groups] == [
        ("Fails", 90, 50),
        ("Cannot tell", 1, 0),
        ("Holds", 3, 0),
    ]


def test_tries_are_drawn_while_they_can_be_counted(report_samples: ModuleType) -> None:
    verdict = report_samples.two().verdict
    assert drawn_tries(verdict) == ("used",) * 3 + ("this",) + ("left",) * 6
    many = verdict.model_copy(update={"budget": verdict.budget.model_copy(update={"tries_left": 900})})
    assert drawn_tries(many) == ()
    assert drawn_tries(report_samples.not_better().verdict) == ()


def test_suspects_are_told_with_the_outcome_without_them(report_samples: ModuleType) -> None:
    two, none = report_samples.two(), report_samples.opened()
    said = suspects_sentence(two.report, two.verdict, policy=two.policy)
    assert said.startswith("5 labels may be wrong")
    assert "Without them the outcome is the same, better." in said
    assert "No label is disputed with a score of 0.95" in suspects_sentence(
        none.report, none.verdict, policy=none.policy
    )


def test_text_from_outside_stays_on_one_line_and_shows_what_hides() -> None:
    assert plain("a\nb\tc\x1b[0m") == "a\\nb\\u0009c\\u001b[0m"
    assert plain("\u202eevil\u2066\u2028") == "\\u202eevil\\u2066\\u2028"
    assert plain("👩\u200d🔬 قطة") == "👩\u200d🔬 قطة"
    assert plain("x" * 500, 10) == "x" * 9 + "…"


def test_figures_are_written_alike() -> None:
    assert (percent(0.9825), percent(0.5, 0)) == ("98.2%", "50%")
    assert (points(0.0621), points(-0.2), points(0.0)) == ("+6.2", "−20.0", "0.0")
    assert (signed(0.00001), signed(-3, 0)) == ("0.0000", "−3")
    assert [bytes_text(size) for size in (12, 4_000, 41_943_040, 2e9)] == ["12 bytes", "4.0 kB", "41.9 MB", "2.0 GB"]
    assert (counted(1, "photo"), counted(1200, "photo"), counted(2, "try", "tries")) == (
        "1 photo",
        "1,200 photos",
        "2 tries",
    )
