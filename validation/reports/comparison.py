"""What the report says of the answers that it shows: each model's figures, and what differs between the two.

Its place in the flow: measure.py asks with all answers; of the sealed photos nothing but their number
goes into the report, as long as they are to decide again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from validation.answers import Answers
from validation.checks.groups import Group, Tally, class_members, right_answers, slice_columns, slice_members, tally
from validation.checks.policy import MetricName, Policy
from validation.evaluate import is_constant
from validation.figures.curves import calibration_bins, risk_coverage
from validation.figures.label_order import label_order
from validation.figures.metric_comparison import compare_metric
from validation.figures.metrics import (
    NO_ANSWER,
    Scores,
    balanced_accuracy,
    calibration_error,
    confusion_matrix,
    cost_matrix,
    log_loss,
    macro_f1,
    metric_value,
    predicted_classes,
)
from validation.figures.proportions import proportion_interval
from validation.figures.statistics import difference_interval
from validation.figures.suspects import suspect_labels
from validation.reports.report import (
    MAX_CHANGED_PHOTOS,
    ChangedPhoto,
    ClassMeasurements,
    MetricComparison,
    SliceMeasurements,
)

MAX_SLICE_VALUES = 200
"""A column with more values names photos rather than kinds of photos; the report leaves it out."""

_ALWAYS: tuple[MetricName, ...] = ("macro_f1", "balanced_accuracy", "log_loss", "calibration_error")


def shown_answers(answers: Answers, *, scope: Literal["open", "all"]) -> Answers:
    """Return the answers that the report may show: to the open photos, or to all once none is to decide again."""
    return answers if scope == "all" else answers.select(answers.is_open)


def compare(
    answers: Answers, *, policy: Policy, scope: Literal["open", "all"], columns: Sequence[str] | None = None
) -> dict[str, object]:
    """Return the report's fields that come from both models' answers.

    Args:
        answers: to all photos that may be judged by, near duplicates left out.
        policy: which metrics, costs and suspects to look at.
        scope: which photos are shown.
        columns: the candidate's labels in the order of its own columns; None for the holdout's.
    """
    shown = shown_answers(answers, scope=scope)
    return {
        **compare_counts(shown),
        "scope": scope,
        "sealed_photos": len(answers) - len(shown),
        "metrics": _metrics(shown, policy),
        "suspects": suspect_labels(shown, rule=policy.suspect_labels),
        "label_order": label_order(shown, columns=columns),
    }


def compare_counts(shown: Answers) -> dict[str, object]:
    """Return those of the report's fields that are counted: right answers in all, classes and slices, and changes."""
    candidate, champion = right_answers(shown)
    whole = tally(candidate, champion, np.arange(len(shown), dtype=np.int64))
    classes = _tallies(shown, class_members(shown.labels, shown.truth))
    return {
        "labels": shown.labels,
        "photos": len(shown),
        "paired": whole.paired,
        "gain_interval": None if whole.paired is None else difference_interval(whole.paired),
        "classes": tuple(_class(group, counted) for group, counted in classes.items()),
        "slices": tuple(_slice(group, counted) for group, counted in _tallies(shown, _slices(shown)).items()),
        "fixed": () if champion is None else _changed(shown, candidate & ~champion),
        "broken": () if champion is None else _changed(shown, champion & ~candidate),
    }


def measurements_of(
    truth: NDArray[np.int64], scores: Scores, *, labels: Sequence[str], policy: Policy
) -> dict[str, object]:
    """Return what ModelMeasurements says of one model's answers to the shown photos.

    Args:
        truth: the index of each shown photo's label.
        scores: float32 [n, classes].
        labels: the classes.
        policy: says which metrics are asked for.
    """
    predicted = predicted_classes(scores)
    confusion = confusion_matrix(truth, predicted, classes=scores.shape[1])
    right = int((predicted == truth).sum())
    costs = None if policy.costs is None else cost_matrix(policy.costs, labels)
    wants_top_k = any(rule.name == "top_k_accuracy" for rule in policy.metrics)
    top_k = policy.top_k
    return {
        "right": right,
        "accuracy_interval": proportion_interval(right, len(truth)),
        "macro_f1": macro_f1(confusion),
        "log_loss": log_loss(truth, scores),
        "calibration_error": calibration_error(truth, scores),
        "confusion": tuple(tuple(int(count) for count in row) for row in confusion),
        "non_finite_photos": int((~np.isfinite(scores).all(axis=1)).sum()),
        "is_constant": is_constant(scores),
        "balanced_accuracy": balanced_accuracy(confusion),
        "top_k_accuracy": metric_value("top_k_accuracy", truth, scores, top_k=top_k) if wants_top_k else None,
        "mean_cost": None if costs is None else metric_value("mean_cost", truth, scores, top_k=top_k, costs=costs),
        "calibration": calibration_bins(truth, scores),
        "risk_coverage": risk_coverage(truth, scores),
    }


def _slices(shown: Answers) -> dict[Group, NDArray[np.int64]]:
    columns = slice_columns(shown.items)
    members = slice_members(shown.items, columns=columns)
    values = {column: sum(group.column == column for group in members) for column in columns}
    return {group: photos for group, photos in members.items() if values[group.column or ""] <= MAX_SLICE_VALUES}


def _tallies(shown: Answers, members: Mapping[Group, NDArray[np.int64]]) -> dict[Group, Tally]:
    right = right_answers(shown)
    return {group: tally(*right, photos) for group, photos in members.items()}


def _class(group: Group, counted: Tally) -> ClassMeasurements:
    return ClassMeasurements(
        label=group.value,
        n=counted.n,
        candidate_right=counted.right,
        recall_interval=proportion_interval(counted.right, counted.n),
        paired=counted.paired,
        gain_interval=None if counted.paired is None else difference_interval(counted.paired),
    )


def _slice(group: Group, counted: Tally) -> SliceMeasurements:
    assert group.column is not None, "a slice is a value of a column"
    return SliceMeasurements(
        column=group.column,
        value=group.value,
        n=counted.n,
        candidate_right=counted.right,
        accuracy_interval=proportion_interval(counted.right, counted.n),
        paired=counted.paired,
        gain_interval=None if counted.paired is None else difference_interval(counted.paired),
    )


def _metrics(shown: Answers, policy: Policy) -> tuple[MetricComparison, ...]:
    asked = [rule.name for rule in policy.metrics]
    also: list[MetricName] = ["mean_cost"] if policy.costs is not None else []
    costs = None if policy.costs is None else cost_matrix(policy.costs, shown.labels)
    compared = (
        compare_metric(name, shown, top_k=policy.top_k, costs=costs)
        for name in dict.fromkeys([*_ALWAYS, *asked, *also])
    )
    return tuple(comparison for comparison in compared if comparison is not None)


def _changed(shown: Answers, changed: NDArray[np.bool_]) -> tuple[ChangedPhoto, ...]:
    assert shown.champion is not None, "what changed, changed against the champion"
    candidate, champion = predicted_classes(shown.candidate), predicted_classes(shown.champion)
    # The items are sorted by digest, so the first ones are as good as drawn by lot.
    return tuple(
        ChangedPhoto(
            sha256=shown.items[index].sha256,
            label=shown.items[index].label,
            candidate_answer=_name(shown, candidate[index]),
            champion_answer=_name(shown, champion[index]),
        )
        for index in np.flatnonzero(changed)[:MAX_CHANGED_PHOTOS]
    )


def _name(shown: Answers, answer: np.int64) -> str | None:
    return None if answer == NO_ANSWER else shown.labels[int(answer)]
