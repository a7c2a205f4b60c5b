"""Learning rates by step: warm-up, the five schedules, rules for the batch size, freezing."""

from __future__ import annotations

from typing import Any

import pytest

from training_cluster.config.tables import ModelTable, OptimizationTable
from training_cluster.config.training_config import TrainingConfig
from training_cluster.training.schedule import RateSchedule

_STEPS = 100


def _schedule(frozen_epochs: int = 0, fine_tune_factor: float = 1.0, **keys: Any) -> RateSchedule:
    table = OptimizationTable(epochs=10, learning_rate=1.0, **keys)
    model = ModelTable(frozen_epochs=frozen_epochs, fine_tune_factor=fine_tune_factor)
    return RateSchedule.of(TrainingConfig(model=model, optimization=table), total_steps=_STEPS)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"schedule": "constant"}, {0: 1, 99: 1}),
        ({"schedule": "linear"}, {0: 1, 50: 0.5, 100: 0}),
        ({"schedule": "linear", "final_rate_share": 0.2}, {0: 1, 50: 0.6, 100: 0.2}),
        ({"schedule": "cosine"}, {0: 1, 50: 0.5, 100: 0}),
        ({"schedule": "cosine", "final_rate_share": 0.5}, {50: 0.75, 100: 0.5}),
        ({"schedule": "step", "decay_epochs": (3, 6)}, {0: 1, 29: 1, 30: 0.1, 59: 0.1, 60: 0.01, 99: 0.01}),
        ({"schedule": "exponential", "decay_epochs": (5,), "decay_factor": 0.5}, {0: 1, 50: 0.5, 100: 0.25}),
        ({"schedule": "constant", "warmup_share": 0.1}, {0: 0.1, 4: 0.5, 9: 1, 10: 1}),
        ({"schedule": "linear", "warmup_share": 0.2}, {19: 1, 20: 1, 60: 0.5}),
    ],
)
def test_the_rate_of_a_step_is_what_the_schedule_says(keys: dict[str, Any], expected: dict[int, float]) -> None:
    schedule = _schedule(**keys)
    assert {step: schedule.rate(step) for step in expected} == pytest.approx(expected)


@pytest.mark.parametrize("steps_per_epoch", [1, 3, 7, 13, 391])
def test_a_stepped_rate_falls_with_the_first_step_of_its_epoch(steps_per_epoch: int) -> None:
    table = OptimizationTable(epochs=7, learning_rate=1.0, schedule="step", decay_epochs=(1, 3))
    schedule = RateSchedule(table, total_steps=7 * steps_per_epoch)
    for epoch, rate in ((1, 0.1), (3, 0.01)):
        assert schedule.rate(epoch * steps_per_epoch) == pytest.approx(rate)
        assert schedule.rate(epoch * steps_per_epoch - 1) == pytest.approx(10 * rate)


@pytest.mark.parametrize(("rule", "highest"), [("fixed", 1.0), ("linear", 4.0), ("square-root", 2.0)])
def test_the_rate_follows_the_batch_as_its_rule_says(rule: Any, highest: float) -> None:
    schedule = _schedule(schedule="constant", learning_rate_rule=rule, batch_size=1024, reference_batch_size=256)
    assert schedule.highest == schedule.rate(5) == highest


def test_the_whole_network_is_tuned_at_a_lower_rate_than_its_head() -> None:
    schedule = _schedule(schedule="constant", frozen_epochs=2, fine_tune_factor=0.1)
    assert [schedule.rate(step) for step in (0, 19, 20, 99)] == pytest.approx([1, 1, 0.1, 0.1])
