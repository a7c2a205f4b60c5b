"""Evaluates a predictor on the validation examples, in parts between which may be asked whether to go on.

Its place in the flow: the session examines after each epoch, all its workers a part each; `liftgate
evaluate` examines checkpoints alone.
"""

from __future__ import annotations

from collections.abc import Callable

from training_cluster.inputs.meter import InputMeter
from training_cluster.inputs.pipeline import validation_batches
from training_cluster.inputs.position import ReplicaShare
from training_cluster.inputs.split import ExampleSplit
from training_cluster.training.evaluation import Evaluation, Mistakes, Tally, concluded
from training_cluster.training.predictor import Predictor
from training_cluster.training.workers import Workers

_BATCH_SIZE = 256


class Examination:
    """One set of validation examples, seen by all workers together.

    Args:
        predictor: answers.
        split: knows the examples.
        workers: who share them out.
    """

    def __init__(self, predictor: Predictor, split: ExampleSplit, *, workers: Workers) -> None:
        self._predictor = predictor
        self._split = split
        self._workers = workers
        self.mistakes: Mistakes | None = None

    def evaluate(
        self,
        *,
        step: int,
        asks_to_end: Callable[[], bool] = lambda: False,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Evaluation | None:
        """Return how the predictor does; None when `asks_to_end` said so between two batches.

        Afterwards `mistakes` are the worst of this worker's part.

        Args:
            step: the step that the weights are of.
            asks_to_end: is asked after each batch, by all workers equally often.
            progress: is told how many examples of how many all workers have answered.
        """
        count, total = self._workers.count, self._split.validation_count
        tally, meter = Tally(len(self._split.labels)), InputMeter()
        share = ReplicaShare(pipelines=count, pipeline=self._workers.index)
        mine = meter.watch(validation_batches(self._split, batch_size=_BATCH_SIZE, share=share, meter=meter))
        # A worker may have a batch less than others.
        for begin in range(0, total, _BATCH_SIZE * count):
            batch = next(mine, None)
            if batch is not None:
                logits, labels = next(self._predictor.answers([batch]))
                tally.add(logits, labels, batch[0].numpy())
            progress(min(begin + _BATCH_SIZE * count, total), total)
            if asks_to_end():
                return None
        self.mistakes = tally.mistakes
        return concluded(self._workers.sums(tally.sums), step=step)
