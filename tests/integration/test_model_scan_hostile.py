"""Hostile SavedModels, each really built by TensorFlow, against the scan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from artifact_sync.errors import RefusedError
from artifact_sync.records import InputContract
from validation.programs.model_scan import scan_export
from validation.programs.protos import saved_model_pb2 as pb
from validation.programs.scan_graph import SERVING_OPERATIONS

CONTRACT = InputContract(height=4, width=4, channels=3)

OPERATIONS = {
    "reads_a_file": "ReadFile",
    "reads_a_picture_file": "DecodeJpeg",
    "reads_lines": "TextLineDataset",
    "reads_records": "FixedLengthRecordReaderV2",
    "reads_a_whole_file": "WholeFileReaderV2",
    "reads_from_the_network": "ReadFile",
    "restores_another_checkpoint": "RestoreV2",
    "lists_files": "MatchingFiles",
    "writes_a_file": "WriteFile",
    "saves_a_checkpoint": "SaveV2",
    "prints_to_a_file": "PrintV2",
    "writes_a_summary": "CreateSummaryFileWriter",
    "caches_to_a_file": "CacheDatasetV2",
    "runs_python": "EagerPyFunc",
    "runs_numpy": "PyFunc",
    "never_ends": "StatelessWhile",
    "fills_the_memory": "Fill",
    "fills_the_memory_by_tiles": "Tile",
    "reads_in_a_loop_body": "ReadFile",
    "reads_in_a_branch": "ReadFile",
    "reads_three_functions_down": "ReadFile",
    "reads_in_a_second_signature": "ReadFile",
    "reads_at_initialisation": "ReadFile",
    "writes_at_initialisation_of_old": "WriteFile",
    "looks_up_a_table": "DatasetToSingleElement",
    "parses_a_picture": "DecodeImage",
    "draws_lots": "RandomUniform",
}
"""Which operation, reached from a signature or the initialisation, the scan names."""

OTHERS = {
    "reads_in_an_unused_function": "operation ReadFile, reached from no signature",
    "reads_an_asset_when_loaded": r"the file 'assets/words\.txt' does not belong in an export",
    "saves_while_it_is_loaded": "operation SaveV2, reached from loading",
    "restores_from_elsewhere": "operation RestoreV2 reads another file than the model's own variables",
    "takes_an_operations_name": "a function takes the name of the operation Softmax",
    "swaps_functions": r"may be run in place of another \(api_implements\)",
    "calls_itself": "calls itself, directly or through others",
    "has_an_enormous_constant": r"its constants unfold to 1,000,000,000,\d{3} numbers",
    "unfolds_to_millions_of_nodes": "unfolds to more than 1,000,000 parts",
    "is_no_protobuf": "saved_model.pb is not a SavedModel",
    "has_two_graphs": "one meta graph",
    "takes_floats": r"the input 'pixels' is not uint8 \[batch, 4, 4, 3\]",
    "gives_another_name": "the signature does not give 'probabilities'",
    "lacks_variables": r"variables/variables\.data-… is missing",
    "has_a_python_file": r"the file 'assets\.extra/loader\.py' does not belong in an export",
    "has_a_library": r"the file 'variables/libops\.so' does not belong in an export",
    "has_a_link": r"'fingerprint\.pb' is a link or a special file",
    "has_a_hard_link": r"'fingerprint\.pb' has another name elsewhere",
}
"""What else the scan says."""

UNSEEN = {
    "answers_always_the_same",
    "answers_infinity",
    "answers_nan",
    "answers_otherwise_in_batches",
    "asks_for_more_memory_than_there_is",
    "computes_for_hours",
    "fills_the_memory_by_broadcasting",
    "fills_the_memory_by_padding",
    "has_cut_index",
    "has_cut_variables",
    "has_nan_weights",
    "has_swapped_variables",
    "honest",
    "lies_about_its_answer",
}
"""What is made of a classifier's own operations: the trial sees it (test_trial.py), or the gate."""


def scan(directory: Path) -> frozenset[str]:
    return scan_export(directory, contract=CONTRACT, classes=2).operations


def test_every_kind_is_expected_to_be_refused_by_somebody(hostile_models: Path) -> None:
    built = {path.name for path in hostile_models.iterdir() if path.is_dir()}
    assert built == {*OPERATIONS, *OTHERS, *UNSEEN}
    assert len(OPERATIONS) + len(OTHERS) >= 40


def test_an_honest_classifier_passes_and_its_operations_are_known(hostile_models: Path) -> None:
    operations = scan(hostile_models / "honest")
    assert {"Cast", "MatMul", "Mean", "Softmax", "StatefulPartitionedCall", "ReadVariableOp"} <= operations
    assert operations <= SERVING_OPERATIONS


@pytest.mark.parametrize("kind", sorted(OPERATIONS))
def test_what_a_classifier_does_not_need_is_refused_wherever_it_hides(hostile_models: Path, kind: str) -> None:
    with pytest.raises(RefusedError, match=rf"operation {OPERATIONS[kind]}, reached from a signature") as refused:
        scan(hostile_models / kind)
    assert refused.value.exit_code == 3


@pytest.mark.parametrize("kind", sorted(OTHERS))
def test_what_is_wrong_with_it_is_said(hostile_models: Path, kind: str) -> None:
    with pytest.raises(RefusedError, match=OTHERS[kind]):
        scan(hostile_models / kind)


@pytest.mark.parametrize("kind", sorted(UNSEEN))
def test_what_only_shows_when_it_runs_is_left_to_the_trial(hostile_models: Path, kind: str) -> None:
    assert scan(hostile_models / kind) <= SERVING_OPERATIONS


def test_an_answer_of_another_width_is_refused(hostile_models: Path) -> None:
    with pytest.raises(RefusedError, match=r"the output 'probabilities' is not float32 \[batch, 3\]"):
        scan_export(hostile_models / "honest", contract=CONTRACT, classes=3)


def test_the_messages_of_the_scan_have_tensorflows_own_field_numbers() -> None:
    from tensorflow.core.protobuf import saved_model_pb2 as reference

    def compare(ours: Any, theirs: Any, seen: set[str]) -> None:
        if ours.full_name in seen:
            return
        seen.add(ours.full_name)
        for field in ours.fields:
            twin = theirs.fields_by_name[field.name]
            assert (field.number, field.is_repeated) == (twin.number, twin.is_repeated), field.full_name
            if field.message_type is not None:
                compare(field.message_type, twin.message_type, seen)

    seen: set[str] = set()
    compare(pb.SavedModel.DESCRIPTOR, reference.SavedModel.DESCRIPTOR, seen)
    assert len(seen) > 17


def test_what_training_may_export_the_gate_lets_through() -> None:
    from training_cluster.exports.graph_operations import SERVED_OPERATIONS

    assert SERVED_OPERATIONS <= SERVING_OPERATIONS
