from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from artifact_sync.canonical import sha256_hex
from artifact_sync.errors import SettingsError
from validation.answers import Answers
from validation.checks.policy import SuspectRule
from validation.figures.suspects import disputed, suspect_labels
from validation.photos.holdout import HoldoutItem

LABELS = ("cat", "dog", "owl")
RULE = SuspectRule(confidence=0.9)


def answers_of(truth: list[int], candidate: Any, champion: Any) -> Answers:
    items = tuple(
        HoldoutItem(sha256=sha256_hex(str(photo).encode()), extension="png", label=LABELS[index], source="folder:x")
        for photo, index in enumerate(truth)
    )
    return Answers(
        labels=LABELS,
        items=items,
        truth=np.array(truth, dtype=np.int64),
        candidate=np.array(candidate, dtype=np.float32),
        champion=None if champion is None else np.array(champion, dtype=np.float32),
    )


def test_a_photo_is_suspect_where_both_models_are_sure_of_the_same_other_answer() -> None:
    answers = answers_of(
        [0, 0, 0, 1, 2],
        candidate=[[0.0, 0.95, 0.05], [0.0, 0.95, 0.05], [0.1, 0.85, 0.05], [0, 0.99, 0.01], [0.02, 0.98, 0]],
        champion=[[0.0, 0.99, 0.01], [0.05, 0.0, 0.95], [0.0, 0.99, 0.01], [0, 0.99, 0.01], [0.03, 0.97, 0]],
    )
    assert disputed(answers, rule=RULE).tolist() == [True, False, False, False, True]
    surest, other = suspect_labels(answers, rule=RULE)
    assert (surest.sha256, surest.label, surest.answer) == (answers.items[4].sha256, "owl", "dog")
    assert surest.candidate_score == pytest.approx(0.98)
    assert surest.champion_score == pytest.approx(0.97)
    assert (other.sha256, other.label, other.answer, other.method) == (
        answers.items[0].sha256,
        "cat",
        "dog",
        "agreement",
    )


def test_a_score_of_just_the_stated_confidence_is_sure() -> None:
    answers = answers_of([0, 0], [[0.25, 0.75, 0], [0.5, 0.25, 0.25]], [[0.25, 0.75, 0], [0.0, 1.0, 0.0]])
    assert disputed(answers, rule=SuspectRule(confidence=0.75)).tolist() == [True, False]


def test_a_first_model_disputes_labels_alone() -> None:
    answers = answers_of([0, 1], [[0.02, 0.0, 0.98], [0.1, 0.6, 0.3]], None)
    (suspect,) = suspect_labels(answers, rule=RULE)
    assert (suspect.label, suspect.answer, suspect.champion_score) == ("cat", "owl", None)


def test_an_answer_that_is_not_finite_disputes_nothing() -> None:
    answers = answers_of([0, 0], [[np.nan, 1, 0], [0, 1, 0]], [[0, 1, 0], [0, np.inf, 0]])
    assert not disputed(answers, rule=RULE).any()
    assert suspect_labels(answers, rule=RULE) == ()


def without_cleanlab(name: str, package: str | None = None) -> Any:
    if name.startswith("cleanlab"):
        raise ImportError(f"No module named {name!r}")
    return REAL_IMPORT(name, package)


REAL_IMPORT = importlib.import_module


def test_without_cleanlab_a_policy_that_asks_for_it_is_told_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("validation.figures.suspects.importlib.import_module", without_cleanlab)
    answers = answers_of([0, 1], [[1, 0, 0], [0, 1, 0]], None)
    assert not disputed(answers, rule=RULE).any()
    with pytest.raises(SettingsError, match=r"not installed .*liftgate\[cleanlab\]"):
        disputed(answers, rule=SuspectRule(cleanlab=True))
    with pytest.raises(SettingsError):
        suspect_labels(answers, rule=SuspectRule(cleanlab=True))


def told_by(issues: Callable[..., NDArray[np.bool_]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("validation.figures.suspects._cleanlab", lambda: issues)


def test_what_cleanlab_finds_is_named_beside_what_the_models_agree_on(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {}

    def issues(*, labels: Any, pred_probs: Any, n_jobs: int) -> NDArray[np.bool_]:
        asked.update(labels=labels, pred_probs=pred_probs, n_jobs=n_jobs)
        return np.array([False, True, True])

    told_by(issues, monkeypatch)
    answers = answers_of(
        [0, 0, 1, 2],
        candidate=[[0.0, 0.95, 0.05], [0.3, 0.6, 0.1], [0.2, 0.7, 0.1], [np.nan, 0, 1]],
        champion=[[0.0, 0.95, 0.05], [0.2, 0.7, 0.1], [0.2, 0.7, 0.1], [0, 0, 1]],
    )
    rule = SuspectRule(confidence=0.9, cleanlab=True)
    assert [suspect.method for suspect in suspect_labels(answers, rule=rule)] == ["agreement", "cleanlab"]
    assert disputed(answers, rule=rule).tolist() == [True, True, False, False]
    assert asked["labels"].tolist() == [0, 0, 1]
    assert asked["pred_probs"].sum(axis=1) == pytest.approx(1.0)
    assert asked["pred_probs"][1] == pytest.approx([0.25, 0.65, 0.1])
    assert asked["n_jobs"] == 1
