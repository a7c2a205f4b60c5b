"""The learning rate of every step: a pure function of the configuration and the step's number.

Its place in the flow: the loop hands the rate to the optimizer at each step, and the session reports
the same figure. Nothing is remembered, so a resumed training goes on with the rate it would have had.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from training_cluster.config.tables import OptimizationTable
from training_cluster.config.training_config import TrainingConfig


@dataclass(frozen=True)
class RateSchedule:
    """The rates of one training.

    Attributes:
        table: what the configuration says.
        total_steps: of the whole training.
        frozen_steps: so many first steps train only the head; 0 when nothing is frozen.
        fine_tune_factor: what the rate is multiplied with after them.
    """

    table: OptimizationTable
    total_steps: int
    frozen_steps: int = 0
    fine_tune_factor: float = 1.0

    @classmethod
    def of(cls, config: TrainingConfig, *, total_steps: int) -> RateSchedule:
        """Return the schedule of a configuration for a training of so many steps."""
        steps_per_epoch = total_steps / config.optimization.epochs
        frozen_steps = round(steps_per_epoch * config.model.frozen_epochs)
        return cls(config.optimization, total_steps, frozen_steps, config.model.fine_tune_factor)

    @property
    def highest(self) -> float:
        """The rate for this batch size, before warm-up and decay."""
        table = self.table
        ratio = table.batch_size / table.reference_batch_size
        match table.learning_rate_rule:
            case "linear":
                return table.learning_rate * ratio
            case "square-root":
                return table.learning_rate * math.sqrt(ratio)
            case _:
                return table.learning_rate

    def rate(self, step: int) -> float:
        """Return the rate of a step, counted from 0."""
        warmup_steps = round(self.total_steps * self.table.warmup_share)
        highest = self.highest
        if self.frozen_steps and step >= self.frozen_steps:
            highest *= self.fine_tune_factor
        if step < warmup_steps:
            return highest * (step + 1) / warmup_steps
        return highest * self._share(step, step - warmup_steps, max(1, self.total_steps - warmup_steps))

    def _share(self, step: int, steps_after_warmup: int, decaying_steps: int) -> float:
        table = self.table
        progress = min(1.0, steps_after_warmup / decaying_steps)
        epochs = table.epochs * step / max(1, self.total_steps)
        match table.schedule:
            case "cosine":
                falling = (1 + math.cos(math.pi * progress)) / 2
                return table.final_rate_share + (1 - table.final_rate_share) * falling
            case "linear":
                return 1 - (1 - table.final_rate_share) * progress
            case "step":
                # Half a step of slack: an epoch's first step must not fall before its boundary by rounding.
                slack = table.epochs / (2 * max(1, self.total_steps))
                return table.decay_factor ** sum(epochs + slack >= epoch for epoch in table.decay_epochs)
            case "exponential":
                after_warmup = table.epochs * steps_after_warmup / max(1, self.total_steps)
                return float(table.decay_factor ** (after_warmup / table.decay_epochs[0]))
            case "constant":
                return 1.0
