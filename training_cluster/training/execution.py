"""One execution of the trainer with TensorFlow: prepare the process, train, export, describe.

Its place in the flow: the trainer imports this once it knows that there is something to train. The
run folder gets its files in the order events and checkpoints → export → run.json → manifest.json,
and the last of them makes the run complete.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

import keras
import tensorflow as tf

from artifact_sync.clock import Clock
from artifact_sync.durable import write_durably
from artifact_sync.errors import RefusedError
from artifact_sync.manifest import build_manifest
from artifact_sync.records import RunRecord
from artifact_sync.run_folder import RunFolder
from training_cluster.cluster import Spread
from training_cluster.config.tables import ExecutionTable
from training_cluster.config.training_config import TrainingConfig
from training_cluster.exports.run_export import TrainedModel, export_run, refuse_unexportable
from training_cluster.inputs.pipeline import validation_batches
from training_cluster.inputs.source import DataSource
from training_cluster.inputs.split import ExampleSplit
from training_cluster.runs.run import PACKAGE_DIR, TrainingStart, code_state, environment, hardware
from training_cluster.training.failures import explained
from training_cluster.training.interruption import Interruption
from training_cluster.training.meters import Costs
from training_cluster.training.session import Surroundings, TrainingSession
from training_cluster.training.workers import Workers

if TYPE_CHECKING:
    from training_cluster.trainer import TrainingTask


class Execution:
    """A task with all that it needs; `run` does it.

    Making one configures TensorFlow for this process and, with several workers, waits for them.
    """

    def __init__(
        self,
        task: TrainingTask,
        *,
        config: TrainingConfig,
        source: DataSource,
        clock: Clock,
        interruption: Interruption,
        costs: Costs,
    ) -> None:
        self.task = task
        self.config = config
        self.manifest = source.manifest
        self.clock = clock
        self.interruption = interruption
        self.costs = costs
        self.folder = RunFolder(task.run_dir)
        self.split = ExampleSplit(source, config)
        self.workers = _prepare(config.execution, task.spread)

    def run(self) -> bool:
        """Train, and return whether the run is complete; False means interrupted at a checkpoint.

        Raises:
            PeerLostError: another worker is lost.
            TrainingError: no candidate came out of it.
            CapacityError: the disk is full.
        """
        start = self._start()
        began = time.monotonic()
        with self.interruption.listening(), explained(self.config, workers=self.workers.count):
            self._refuse_difference(start)
            session = TrainingSession(self._surroundings(start))
            if ":" in self.config.model.architecture and self.config.export.is_folded:
                # A network of the user's own may do what hosts do not: that is said before days are spent.
                refuse_unexportable(session.predictor.model, contract=self.manifest.contract)
            if not session.run():
                return False
            # What was saved is safe; an export that is asked to end is made again.
            if self.workers.is_chief and not self.interruption.is_requested:
                self._finish(session, start, seconds=time.monotonic() - began)
        return self.folder.is_complete or not self.workers.is_chief

    def _start(self) -> TrainingStart:
        start = TrainingStart(
            run_id=self.task.run_id,
            model=self.task.model,
            trained_by=self.task.trained_by,
            started_at=self.clock.now(),
            config=self.config.resolved(),
            config_sha256=self.config.sha256,
            data_manifest_sha256=self.manifest.sha256,
        )
        first = start.begin(self.folder.path)
        # Comparing runs needs the account of the data, wherever the dataset is by then.
        write_durably(self.folder.data_manifest_json, self.manifest.to_json())
        return first

    def _refuse_difference(self, start: TrainingStart) -> None:
        """Refuse to train together from other data or with another configuration than the chief."""
        mine = [int(digest[:15], 16) for digest in (start.config_sha256, start.data_manifest_sha256)]
        all_of_them = self.workers.gather(mine)
        for number, what in enumerate(("configuration", "dataset")):
            others = [str(index) for index, row in enumerate(all_of_them) if row[number] != all_of_them[0, number]]
            if others:
                raise RefusedError(
                    f"Training refused: worker {' and worker '.join(others)} of {self.workers.count} has another "
                    f"{what} than the chief. Give all hosts the same and start them again."
                )

    def _surroundings(self, start: TrainingStart) -> Surroundings:
        return Surroundings(
            workers=self.workers,
            config=self.config,
            split=self.split,
            folder=self.folder,
            clock=self.clock,
            interruption=self.interruption,
            costs=self.costs,
            binding={"configuration": start.config_sha256, "dataset": start.data_manifest_sha256},
        )

    def _finish(self, session: TrainingSession, start: TrainingStart, *, seconds: float) -> None:
        evaluation = session.evaluation
        exported = export_run(
            TrainedModel(
                model=session.predictor.model,
                name=self.task.model,
                contract=self.manifest.contract,
                labels=self.manifest.labels,
                validation=lambda: (
                    (pixels.numpy(), truth.numpy()) for pixels, truth in validation_batches(self.split)
                ),
            ),
            folder=self.folder,
            table=self.config.export,
            report=lambda detail: session.reports.say("export", detail=detail),
        )
        metrics = {
            "validation_accuracy": evaluation.accuracy,
            "validation_loss": evaluation.loss,
            "validation_examples": float(self.split.validation_count),
            "training_examples": float(self.split.training_count),
            "steps": float(session.step),
            "exported_step": float(evaluation.step),
            "images_per_second": self.costs.steps_per_second * self.config.optimization.batch_size,
            "last_start_seconds": seconds,
            **self.costs.figures(),
            **exported.metrics,
        }
        record = self._record(start, metrics, notes=session.notes | exported.notes)
        exported.describe_variants(record)
        write_durably(self.folder.run_json, record.to_json())
        write_durably(self.folder.manifest_json, build_manifest(self.folder.export).to_json())
        session.reports.say("complete", validation_loss=evaluation.loss, validation_accuracy=evaluation.accuracy)

    def _record(self, start: TrainingStart, metrics: dict[str, float], *, notes: Mapping[str, str]) -> RunRecord:
        code = code_state(PACKAGE_DIR)
        threads = {
            "intra_op": tf.config.threading.get_intra_op_parallelism_threads(),
            "inter_op": tf.config.threading.get_inter_op_parallelism_threads(),
        }
        devices = tuple(
            str(tf.config.experimental.get_device_details(device).get("device_name", device.name))
            for device in tf.config.list_physical_devices("GPU")
        )
        return RunRecord(
            run_id=start.run_id,
            model=start.model,
            trained_by=start.trained_by,
            started_at=start.started_at,
            finished_at=self.clock.now(),
            code_commit=code.commit,
            code_dirty=code.is_dirty,
            data_manifest_sha256=start.data_manifest_sha256,
            config=start.config,
            config_sha256=start.config_sha256,
            seed=self.config.execution.seed,
            is_deterministic=self.config.execution.is_deterministic,
            environment=environment(threads=threads) | {"workers": str(self.workers.count)} | dict(notes),
            hardware=hardware(accelerators=devices),
            metrics=metrics,
            labels=self.manifest.labels,
            input_contract=self.manifest.contract,
        )


def _prepare(table: ExecutionTable, spread: Spread) -> Workers:
    # In this order: TensorFlow takes threads only before and a strategy only as its first use.
    if table.threads:
        tf.config.threading.set_intra_op_parallelism_threads(table.threads)
        tf.config.threading.set_inter_op_parallelism_threads(table.threads)
    workers = Workers.join(spread)
    if table.is_deterministic:
        tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(table.seed)
    return workers
