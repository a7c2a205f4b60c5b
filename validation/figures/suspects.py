"""Photos of the holdout whose labels are in doubt: the models say something else with one voice.

Its place in the flow: the gate decides with and without these photos, and a verdict that depends on
them goes to a person; the report shows them. Public test sets hold 3.3 % wrong labels on average
(Northcutt, Athalye and Mueller, NeurIPS 2021), which is more than many a gain.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artifact_sync.errors import SettingsError
from validation.answers import Answers
from validation.checks.policy import SuspectRule
from validation.figures.metrics import NO_ANSWER, Classes, Scores, predicted_classes
from validation.reports.report import SuspectLabel


def suspect_labels(answers: Answers, *, rule: SuspectRule) -> tuple[SuspectLabel, ...]:
    """Return the suspect photos, those first in which the less sure model is surest.

    Raises:
        SettingsError: the rule wants cleanlab, which is not installed.
    """
    agreed, found = _agreed(answers, rule=rule), _disputed_by_cleanlab(answers, rule=rule)
    answer = np.where(agreed, predicted_classes(answers.candidate), _joint_answer(answers))
    suspects = [
        SuspectLabel(
            sha256=answers.items[photo].sha256,
            label=answers.labels[answers.truth[photo]],
            answer=answers.labels[answer[photo]],
            candidate_score=float(answers.candidate[photo, answer[photo]]),
            champion_score=None if answers.champion is None else float(answers.champion[photo, answer[photo]]),
            method="agreement" if agreed[photo] else "cleanlab",
        )
        for photo in np.flatnonzero(agreed | found)
    ]
    return tuple(sorted(suspects, key=lambda suspect: (-_lower_score(suspect), suspect.sha256)))


def disputed(answers: Answers, *, rule: SuspectRule) -> NDArray[np.bool_]:
    """Return which photos are suspect, bool [n], in the answers' order.

    Raises:
        SettingsError: as `suspect_labels`.
    """
    return _agreed(answers, rule=rule) | _disputed_by_cleanlab(answers, rule=rule)


def _agreed(answers: Answers, *, rule: SuspectRule) -> NDArray[np.bool_]:
    """Which photos all models there are answer alike, confidently, and against the label."""
    agreed = _is_sure(answers.candidate, confidence=rule.confidence)
    answer = predicted_classes(answers.candidate)
    agreed &= answer != answers.truth
    if answers.champion is not None:
        agreed &= _is_sure(answers.champion, confidence=rule.confidence)
        agreed &= predicted_classes(answers.champion) == answer
    return agreed


def _is_sure(scores: Scores, *, confidence: float) -> NDArray[np.bool_]:
    sure: NDArray[np.bool_] = (predicted_classes(scores) != NO_ANSWER) & (
        np.nan_to_num(scores).max(axis=1) >= confidence
    )
    return sure


def _disputed_by_cleanlab(answers: Answers, *, rule: SuspectRule) -> NDArray[np.bool_]:
    """Which photos confident learning calls mislabelled and the models' mean scores too, none if it is not asked."""
    found = np.zeros(len(answers), dtype=np.bool_)
    if not rule.cleanlab:
        return found
    find_label_issues = _cleanlab()
    usable = _is_finite(answers)
    mean = _mean_scores(answers)[usable]
    if len(np.unique(answers.truth[usable])) < 2:
        return found
    with warnings.catch_warnings():
        # It warns of classes with few photos, in which it may find nothing; the policy asks for their number.
        warnings.simplefilter("ignore", UserWarning)
        issues = find_label_issues(labels=answers.truth[usable], pred_probs=mean, n_jobs=1)
    found[usable] = np.asarray(issues, dtype=np.bool_) & (mean.argmax(axis=1) != answers.truth[usable])
    return found


def _cleanlab() -> Callable[..., Any]:
    """Return cleanlab's search; it brings pandas along, so it is imported only when it is asked for."""
    try:
        return importlib.import_module("cleanlab.filter").find_label_issues  # type: ignore[no-any-return]
    except ImportError as error:
        raise SettingsError(
            f"The policy asks for cleanlab (suspect_labels.cleanlab = true), which is not installed here ({error}). "
            'Install it with `pip install "liftgate[cleanlab]"`, or set suspect_labels.cleanlab = false.'
        ) from None


def _is_finite(answers: Answers) -> NDArray[np.bool_]:
    models = [answers.candidate] if answers.champion is None else [answers.candidate, answers.champion]
    finite: NDArray[np.bool_] = np.all([predicted_classes(scores) != NO_ANSWER for scores in models], axis=0)
    return finite


def _mean_scores(answers: Answers) -> NDArray[np.float64]:
    """Return both models' mean scores as probabilities; rows that are not finite are flat."""
    models = [answers.candidate] if answers.champion is None else [answers.candidate, answers.champion]
    mean = np.mean([np.clip(np.nan_to_num(scores.astype(np.float64)), 0, 1) for scores in models], axis=0)
    mean[~_is_finite(answers) | (mean.sum(axis=1) == 0)] = 1.0
    return np.asarray(mean / mean.sum(axis=1, keepdims=True), dtype=np.float64)


def _joint_answer(answers: Answers) -> Classes:
    return np.asarray(_mean_scores(answers).argmax(axis=1), dtype=np.int64)


def _lower_score(suspect: SuspectLabel) -> float:
    if suspect.champion_score is None:
        return suspect.candidate_score
    return min(suspect.candidate_score, suspect.champion_score)
