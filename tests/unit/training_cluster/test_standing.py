"""Where a training stands: positions in epochs, the best epoch, when waiting ends."""

from __future__ import annotations

import json

from training_cluster.inputs.position import EpochPosition, Segment
from training_cluster.training.standing import Standing


def _after(standing: Standing, losses: list[float], *, patience: int) -> Standing:
    for number, loss in enumerate(losses, start=1):
        standing = standing.after_evaluation(step=10 * number, loss=loss, patience=patience)
    return standing


def test_steps_fill_epochs_and_a_change_of_hosts_begins_a_segment() -> None:
    standing = Standing()
    for pipelines in (2, 2, 1):
        standing = standing.after_step(pipelines=pipelines, steps_per_epoch=4)
    assert standing.position == EpochPosition(0, (Segment(2, 2), Segment(1, 1)))
    assert standing.after_step(pipelines=1, steps_per_epoch=4).position == EpochPosition(1)


def test_waiting_counts_from_the_best_and_ends_with_patience() -> None:
    standing = _after(Standing(), [0.9, 0.5, 0.6, 0.5], patience=3)
    assert (standing.best_step, standing.best_loss, standing.waited_epochs) == (20, 0.5, 2)
    assert not standing.is_ended_early
    assert _after(Standing(), [0.9, 0.5, 0.6, 0.5, 0.7], patience=3).is_ended_early
    assert not _after(Standing(), [0.5, 0.6, 0.6, 0.6, 0.6], patience=0).is_ended_early
    assert not _after(Standing(), [0.9, 0.95, 0.8, 0.85], patience=2).is_ended_early


def test_a_checkpoint_keeps_it_and_an_older_checkpoint_says_nothing() -> None:
    standing = _after(Standing(EpochPosition(2, (Segment(2, 3), Segment(3, 1)))), [0.1 + 0.2, 0.4], patience=9)
    for each in (standing, Standing()):
        state = json.loads(json.dumps(each.to_state(), allow_nan=False))
        assert Standing.from_state(state, step=1, steps_per_epoch=7) == each
    assert Standing.from_state({}, step=17, steps_per_epoch=7) == Standing(EpochPosition(2, (Segment(1, 3),)))
    assert Standing.from_state({}, step=14, steps_per_epoch=7) == Standing(EpochPosition(2))
