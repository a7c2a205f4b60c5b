"""Everything that a trained run gives to a model server: the export and the variants that were asked for.

Its place in the flow: the trainer calls `export_run` once training ended, writes what was measured
into run.json, lets the variants be described by the same record, and completes the run by its
manifest. A variant that fails leaves the run as it is and says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import keras
import tensorflow as tf

from artifact_sync.errors import TrainingError
from artifact_sync.records import InputContract, RunRecord
from artifact_sync.run_folder import RunFolder
from training_cluster.config.tables import ExportTable
from training_cluster.exports.answers import (
    DEVICE,
    Answer,
    Comparison,
    Labels,
    Pixels,
    answer_of_model,
    compared,
    in_float32,
)
from training_cluster.exports.export import ExportReport, ServedAs, write_export
from training_cluster.exports.flat_graph import FlatGraph, flat_graph
from training_cluster.exports.folding import folded
from training_cluster.exports.speed import measured_speeds
from training_cluster.exports.variant import Variant, write_bfloat16

PARITY_TOLERANCE = 1e-3
"""How far a probability of the reloaded export may be from the training model's on the same machine:
folding rounds elsewhere (seen: 1e-7 to 1e-4), a fault moves it by far more."""

GOLDEN_TOLERANCE = 1e-3
"""How far a probability may be from the one measured here: other CPUs round the sums of a network
differently (seen: 1e-6 to 1e-4), a wrong weight or a wrong picture moves it by far more."""

_PARITY_EXAMPLES = 512
_GOLDEN_COUNT = 8

Examples = Iterable[tuple[Pixels, Labels]]


@dataclass(frozen=True)
class TrainedModel:
    """What is to be exported.

    Attributes:
        model: gives logits for uint8 pixels, with the weights that are to be served.
        name: the model's name, which warm-up requests ask for.
        contract: shape and names of the input.
        labels: the classes in the order of the scores.
        validation: begins anew at each call and gives the validation examples in batches, pixels
            uint8 [n, h, w, c] and right labels int64 [n], in an order that is always the same.
    """

    model: keras.Model
    name: str
    contract: InputContract
    labels: tuple[str, ...]
    validation: Callable[[], Examples]


@dataclass(frozen=True)
class ExportedRun:
    """What was exported and measured.

    Attributes:
        metrics: figures for run.json, named export_….
        notes: what was done and what was refused in words, for run.json's environment, named export_….
        variants: the further exports that were made.
    """

    metrics: dict[str, float]
    notes: dict[str, str]
    variants: tuple[Variant, ...]

    def describe_variants(self, record: RunRecord) -> None:
        """Complete the variants as runs of their own; `record` is the run's, about to be written."""
        for variant in self.variants:
            variant.describe(record)


def export_run(
    trained: TrainedModel, *, folder: RunFolder, table: ExportTable, report: Callable[[str], None]
) -> ExportedRun:
    """Write `folder.export` and what `table` asks for beside it, replacing what an interrupted export left.

    Args:
        trained: the model.
        folder: the run's.
        table: [export] of the configuration.
        report: is told in one sentence what goes on.

    Raises:
        TrainingError: the export answers otherwise than the model, or uses operations that hosts refuse.
    """
    with in_float32(trained.model) as was_mixed, tf.device(DEVICE):
        return _Export(trained, folder, report, was_mixed=was_mixed).run(table)


def refuse_unexportable(model: keras.Model, *, contract: InputContract) -> None:
    """Find out before days of training whether hosts could execute the network.

    Raises:
        TrainingError: they could not; it names the operations.
    """
    with in_float32(model), tf.device(DEVICE):
        flat_graph(model, contract=contract)


class _Export:
    """One run's export: what its parts share."""

    def __init__(
        self, trained: TrainedModel, folder: RunFolder, report: Callable[[str], None], *, was_mixed: bool
    ) -> None:
        self._trained = trained
        self._folder = folder
        self._report = report
        self._answer = answer_of_model(trained.model)
        first, _ = next(iter(trained.validation()))
        self._golden = first[:_GOLDEN_COUNT]
        self._metrics: dict[str, float] = {}
        self._notes = {"export_number_format": "float32, trained in mixed precision"} if was_mixed else {}

    def run(self, table: ExportTable) -> ExportedRun:
        self._report("the export is made")
        graph = self._graph(is_folded=True) if table.is_folded else None
        exported = self._export(graph)
        variants = {}
        if "bfloat16" in table.variants:
            variant = self._bfloat16(graph)
            variants = {} if variant is None else {"bfloat16": variant}
        self._measure(exported, variants, is_folded=table.is_folded)
        return ExportedRun(self._metrics, self._notes, tuple(variants.values()))

    def _graph(self, *, is_folded: bool) -> FlatGraph:
        graph = flat_graph(self._trained.model, contract=self._trained.contract)
        if is_folded:
            graph, layers = folded(graph)
            self._metrics["export_folded_layers"] = float(layers)
        return graph

    def _export(self, graph: FlatGraph | None) -> ExportReport:
        done = write_export(
            graph or self._trained.model,
            self._folder.export,
            served_as=self._served_as(GOLDEN_TOLERANCE),
            check=self._parity,
        )
        self._metrics["export_bytes"] = float(done.size_bytes)
        self._metrics["export_parity_difference"] = done.comparison.difference
        self._metrics["export_parity_examples"] = float(done.comparison.examples)
        return done

    def _served_as(self, golden_tolerance: float) -> ServedAs:
        trained = self._trained
        return ServedAs(trained.contract, trained.labels, trained.name, self._golden, golden_tolerance)

    def _parity(self, served: Answer) -> Comparison:
        examples = _first(_PARITY_EXAMPLES, self._trained.validation())
        comparison = compared(examples, trained=self._answer, served=served)
        # Not "difference > tolerance": NaN has to fail.
        if not comparison.difference <= PARITY_TOLERANCE:
            raise TrainingError(
                f"Export refused: its probabilities differ by up to {comparison.difference:.2g} from the training "
                f"model's, {PARITY_TOLERANCE:.2g} is allowed. This is a fault of the export; the checkpoint is "
                "untouched."
            )
        return comparison

    def _bfloat16(self, graph: FlatGraph | None) -> Variant | None:
        self._report("the variant bfloat16 is made and compared on all validation examples")
        try:
            return write_bfloat16(
                graph or self._graph(is_folded=False),
                self._folder,
                served_as=self._served_as,
                compare=lambda served: compared(self._trained.validation(), trained=self._answer, served=served),
            )
        except TrainingError as error:
            self._notes["export_bfloat16"] = f"refused: {error}"
            self._report(f"the variant bfloat16 is left out: {error}")
            return None

    def _measure(self, exported: ExportReport, variants: dict[str, Variant], *, is_folded: bool) -> None:
        """Enter how much faster than the unfolded model the exports are."""
        answers = {"unfolded": self._answer} | ({"export": exported.answer} if is_folded else {})
        answers |= {name: variant.answer for name, variant in variants.items()}
        if len(answers) == 1:
            return
        self._report("the speed of the exports is measured")
        speeds = measured_speeds(answers, self._golden)
        if is_folded:
            self._metrics |= _named("export_speedup", speeds.gain("export", over="unfolded"))
            self._metrics |= _named("export_images_per_second", speeds.images_per_second("export"))
        for name, variant in variants.items():
            gain = speeds.gain(name, over="unfolded")
            self._metrics |= _named(f"export_{name}_speedup", gain)
            variant.metrics.update(_named("export_speedup", gain))
            variant.metrics.update(_named("export_images_per_second", speeds.images_per_second(name)))


def _first(count: int, examples: Examples) -> Examples:
    for pixels, labels in examples:
        yield pixels[:count], labels[:count]
        count -= len(pixels)
        if count <= 0:
            return


def _named(figure: str, values: dict[int, float]) -> dict[str, float]:
    return {f"{figure}_batch_{size}": value for size, value in values.items()}
