"""GetModelStatus and GetModelMetadata: what a server says of its models."""

from __future__ import annotations

from typing import Any

import pytest


class TestStatus:
    def test_one_version(self, standing: Any) -> None:
        (entry,) = standing.status("half_plus_two").values()
        assert (entry.version, entry.state) == (123, 30)
        assert entry.HasField("status")
        assert (entry.status.error_code, entry.status.error_message) == (0, "")

    def test_versions_are_listed_newest_first(self, standing: Any) -> None:
        assert list(standing.status("plus")) == [3, 2, 1]

    def test_a_version_is_named(self, standing: Any) -> None:
        assert list(standing.status("plus", version=2)) == [2]

    def test_a_label_is_not_looked_at(self, standing: Any) -> None:
        assert list(standing.status("plus", label="stable")) == [3, 2, 1]
        assert list(standing.status("plus", label="nobody's")) == [3, 2, 1]

    @pytest.mark.parametrize(
        ("model", "spec", "message"),
        [
            ("nobody", {}, "Could not find any versions of model nobody"),
            ("nobody", {"version": 1}, "Could not find version 1 of model nobody"),
            ("plus", {"version": 9}, "Could not find version 9 of model plus"),
        ],
    )
    def test_what_is_not_there(self, standing: Any, model: str, spec: dict[str, Any], message: str) -> None:
        assert standing.refused(lambda: standing.status(model, **spec)) == ("NOT_FOUND", message)

    def test_no_model_spec(self, standing: Any) -> None:
        from tensorflow_serving.apis import get_model_status_pb2

        empty = get_model_status_pb2.GetModelStatusRequest()
        found = standing.refused(lambda: standing.model.GetModelStatus(empty, timeout=60))
        assert found == ("INVALID_ARGUMENT", "Missing ModelSpec")


class TestMetadata:
    def test_it_has_every_signature(self, standing: Any) -> None:
        response = standing.metadata("half_plus_two", "signature_def")
        assert (response.model_spec.name, response.model_spec.version.value) == ("half_plus_two", 123)
        signatures = self.signatures(response)
        # Of TensorFlow 2's models there would be __saved_model_init_op too.
        assert set(signatures) >= {"serving_default", "regress_x_to_y", "classify_x_to_y", "classify_x2_to_y3"}
        predict = signatures["serving_default"]
        assert predict.method_name == "tensorflow/serving/predict"
        assert predict.inputs["x"].dtype == 1
        assert [dim.size for dim in predict.inputs["x"].tensor_shape.dim] == [-1, 1]
        assert signatures["regress_x_to_y"].method_name == "tensorflow/serving/regress"

    def test_a_model_of_tensorflow_2_has_its_init_op(self, standing: Any) -> None:
        assert "__saved_model_init_op" in self.signatures(standing.metadata("matrix", "signature_def"))

    @pytest.mark.parametrize(
        ("spec", "version"), [({}, 3), ({"version": 2}, 2), ({"label": "stable"}, 1), ({"label": "canary"}, 2)]
    )
    def test_versions_and_labels_are_honoured(self, standing: Any, spec: dict[str, Any], version: int) -> None:
        assert standing.metadata("plus", "signature_def", **spec).model_spec.version.value == version

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ((), "GetModelMetadataRequest must specify at least one metadata_field"),
            (("weights",), "Metadata field weights is not supported"),
            (("signature_def", "weights"), "Metadata field weights is not supported"),
        ],
    )
    def test_fields_that_there_are_not(self, standing: Any, fields: tuple[str, ...], message: str) -> None:
        found = standing.refused(lambda: standing.metadata("half_plus_two", *fields))
        assert found == ("INVALID_ARGUMENT", message)

    @pytest.mark.parametrize(
        ("model", "spec", "code", "message"),
        [
            ("nobody", {}, "NOT_FOUND", "Servable not found for request: Latest(nobody)"),
            ("plus", {"version": 9}, "NOT_FOUND", "Servable not found for request: Specific(plus, 9)"),
            ("plus", {"label": "none"}, "INVALID_ARGUMENT", "Unrecognized servable version label: none"),
        ],
    )
    def test_a_choice_that_is_not_there(
        self, standing: Any, model: str, spec: dict[str, Any], code: str, message: str
    ) -> None:
        assert standing.refused(lambda: standing.metadata(model, "signature_def", **spec)) == (code, message)

    def test_no_model_spec(self, standing: Any) -> None:
        from tensorflow_serving.apis import get_model_metadata_pb2

        empty = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        found = standing.refused(lambda: standing.prediction.GetModelMetadata(empty, timeout=60))
        assert found == ("INVALID_ARGUMENT", "Missing ModelSpec")

    @staticmethod
    def signatures(response: Any) -> dict[str, Any]:
        from tensorflow_serving.apis import get_model_metadata_pb2

        found = get_model_metadata_pb2.SignatureDefMap()
        assert response.metadata["signature_def"].Unpack(found)
        return dict(found.signature_def)
