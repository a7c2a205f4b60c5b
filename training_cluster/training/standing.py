"""Where a training stands beside its weights: the place in the epoch, the best epoch so far, whether it is over.

Its place in the flow: the session moves it on with each step and each evaluation and keeps it in every
checkpoint, so that a run that starts again asks the same questions and gives the same answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from training_cluster.inputs.position import EpochPosition, Segment


@dataclass(frozen=True)
class Standing:
    """What a checkpoint says beside the arrays.

    Attributes:
        position: the epoch and what was done of it.
        evaluated_step: the step of the newest evaluation; 0 when there was none.
        best_step: the step whose weights had the lowest validation loss; 0 before the first evaluation.
        best_loss: that loss.
        waited_epochs: evaluations since then.
        is_ended_early: whether early stopping ended the training.
    """

    position: EpochPosition = field(default_factory=lambda: EpochPosition(0))
    evaluated_step: int = 0
    best_step: int = 0
    best_loss: float = float("inf")
    waited_epochs: int = 0
    is_ended_early: bool = False

    def after_step(self, *, pipelines: int, steps_per_epoch: int) -> Standing:
        """Return how it stands after one more step, fed by so many pipelines."""
        position = self.position.after(1, pipelines=pipelines)
        if position.steps == steps_per_epoch:
            position = EpochPosition(position.epoch + 1)
        return replace(self, position=position)

    def after_evaluation(self, *, step: int, loss: float, patience: int) -> Standing:
        """Return how it stands after an evaluation; `patience` epochs without a better loss end it, 0 never do."""
        if loss < self.best_loss:
            return replace(self, evaluated_step=step, best_step=step, best_loss=loss, waited_epochs=0)
        waited = self.waited_epochs + 1
        return replace(
            self, evaluated_step=step, waited_epochs=waited, is_ended_early=bool(patience) and waited >= patience
        )

    def to_state(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "position": {
                "epoch": self.position.epoch,
                "done": [[segment.pipelines, segment.steps] for segment in self.position.done],
            },
            "evaluated_step": self.evaluated_step,
            # Infinity is no JSON.
            "best": {"step": self.best_step, "loss": self.best_loss} if self.best_step else None,
            "waited_epochs": self.waited_epochs,
            "is_ended_early": self.is_ended_early,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any], *, step: int, steps_per_epoch: int) -> Standing:
        """Return what `to_state` gave; an older checkpoint, which says nothing, was made by one pipeline."""
        if not state:
            epoch, steps = divmod(step, steps_per_epoch)
            return cls(EpochPosition(epoch).after(steps, pipelines=1))
        best = state["best"] or {"step": 0, "loss": float("inf")}
        done = tuple(Segment(pipelines, steps) for pipelines, steps in state["position"]["done"])
        return cls(
            position=EpochPosition(state["position"]["epoch"], done),
            evaluated_step=state["evaluated_step"],
            best_step=best["step"],
            best_loss=best["loss"],
            waited_epochs=state["waited_epochs"],
            is_ended_early=state["is_ended_early"],
        )
