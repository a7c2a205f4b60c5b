"""The pieces of the gate's simulation: what is said of a candidate's truth is true, and rules show what they say."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest

from validation.budgets.budget import Terms, remaining


@pytest.fixture
def trainers(repository: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(repository))
    return importlib.import_module("benchmarks.gate_trainers")


@pytest.fixture
def rules(repository: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(repository))
    return importlib.import_module("benchmarks.gate_rules")


@pytest.fixture
def power(repository: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(repository))
    return importlib.import_module("benchmarks.gate_power")


def draw(trainers, *, n: int = 1000, seed: int = 5):
    random = np.random.default_rng(seed)
    return trainers.Photos.draw(random, n=n, disagreement=0.08, open_share=0.1), random


@pytest.mark.parametrize(
    ("name", "gain"),
    [("Equal", 0), ("Correlated", 0), ("Worse", -0.005 * 0.84 * 0.92), ("Memorising", 0), ("Boosting", 0)],
)
def test_on_fresh_photos_candidates_gain_what_is_said_of_them(trainers, name: str, gain: float) -> None:
    n = 400_000
    photos, random = draw(trainers, n=n)
    candidate = getattr(trainers, name)(photos, random).propose()
    found = (candidate.answer == photos.label).mean() - (photos.champion == photos.label).mean()
    assert found == pytest.approx(gain, abs=4 * np.sqrt(0.08 / n))
    assert np.sign(candidate.gain) == np.sign(gain)
    assert (candidate.answer != photos.champion).mean() == pytest.approx(0.08, abs=0.005)


def test_the_improving_trainer_sends_better_candidates_until_one_is_champion(trainers) -> None:
    photos, random = draw(trainers, n=100_000)
    trainer = trainers.Improving(photos, random)
    better = trainer.propose()
    assert better.gain > 0
    assert (better.answer == photos.label).mean() > (photos.champion == photos.label).mean() + 0.02
    trainer.learn(better, trainers.Feedback(True, photos.is_open, 0.02))
    assert trainer.propose().gain == 0


def test_who_memorises_is_right_on_all_that_was_shown(trainers) -> None:
    photos, random = draw(trainers)
    trainer = trainers.Memorising(photos, random)
    trainer.learn(trainer.propose(), trainers.Feedback(False, photos.is_open, 0.0))
    right = trainer.propose().answer == photos.label
    assert right[photos.is_open].all()
    assert right[~photos.is_open].mean() < 0.95


def test_who_boosts_on_stated_figures_gets_ahead_on_the_photos_they_are_of(trainers) -> None:
    gains = []
    for seed in range(10):
        photos, random = draw(trainers, seed=seed)
        trainer = trainers.Boosting(photos, random)
        rival = (photos.champion == photos.label).mean()
        for _ in range(44):
            candidate = trainer.propose()
            figure = (candidate.answer == photos.label).mean() - rival
            trainer.learn(candidate, trainers.Feedback(False, np.ones_like(photos.is_open), figure))
            trainer.known[:] = False
        gains.append((trainer.propose().answer == photos.label).mean() - rival)
    # Truly it gains nothing; chance alone moves the mean of ten by 0.003.
    assert np.mean(gains) > 0.015


def test_liftgate_shows_open_photos_only_until_its_budget_is_spent(trainers, rules) -> None:
    photos, random = draw(trainers)
    terms = Terms(alpha=0.05, tries=6, promotions=2)
    rule = rules.Liftgate(photos, terms)
    trainer = trainers.Equal(photos, random)
    while (feedback := rule.judge(trainer.propose().answer)) is not None:
        is_spent = len(rule.history.tries) == 6
        assert (feedback.shown == (photos.is_open | is_spent)).all()
    assert len(rule.history.tries) == 6
    assert sum(one.level for one in rule.history.tries) == pytest.approx(0.05)
    assert remaining(terms, rule.history) == pytest.approx(0, abs=1e-12)


def test_harm_on_the_open_photos_costs_nothing(trainers, rules) -> None:
    photos, _ = draw(trainers)
    rule = rules.Liftgate(photos, Terms(alpha=0.05, tries=6, promotions=2))
    feedback = rule.judge(np.where(photos.is_open, ~photos.label, photos.label))
    assert feedback is not None
    assert not feedback.is_promoted
    assert rule.history.tries == ()


def test_the_rules_beside_it_show_everything(trainers, rules) -> None:
    photos, random = draw(trainers)
    candidate = trainers.Equal(photos, random).propose()
    for name, make in rules.rules(0.05, tries=50).items():
        feedback = make(photos).judge(candidate.answer)
        assert feedback is not None
        assert feedback.shown.all() == (not name.startswith("Liftgate"))


def test_the_labels_for_the_first_comparison_are_within_one_and_a_half_times_one_test(power) -> None:
    terms = Terms(alpha=0.05, tries=10, promotions=2)
    rows = {
        row.situation: row
        for row in power.power_rows(terms, gain=0.02, disagreement=0.05, power=0.8, open_share=0.1, draws=1000, seed=3)
    }
    assert rows["first comparison"].level == pytest.approx(0.025)
    assert rows["first comparison, after a first model"].level == pytest.approx(0.0225)
    assert rows["tenth comparison"].level == pytest.approx(0.05 / 18)
    assert max(row.ratio for name, row in rows.items() if name in list(rows)[:2]) <= 1.5
    assert all(0.75 < row.found < 0.86 for row in rows.values())
