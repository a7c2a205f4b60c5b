"""Predict, by TensorFlow Serving's rules: who answers, with what, and how it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from client_lab import numbers, predict_request

TYPED_FIELDS = {
    "float32": ("float_val", [1.5, -2.0]),
    "float64": ("double_val", [1e300, -2.5]),
    "int8": ("int_val", [-128, 127]),
    "int16": ("int_val", [-32768, 5]),
    "int32": ("int_val", [-(2**31), 2**31 - 1]),
    "int64": ("int64_val", [-(2**63), 2**63 - 1]),
    "uint8": ("int_val", [0, 255]),
    "uint16": ("int_val", [0, 65535]),
    "uint32": ("uint32_val", [0, 2**32 - 1]),
    "uint64": ("uint64_val", [0, 2**64 - 1]),
    "bool": ("bool_val", [True, False]),
    "string": ("string_val", [b"\x00\xff", "grün".encode()]),
    "complex64": ("scomplex_val", [1.5, -2.0, 0.0, 4.0]),
    "complex128": ("dcomplex_val", [1.5, -2.0, 0.0, 4.0]),
    # Their bits, as integers: 1.0 and -2.0.
    "float16": ("half_val", [0x3C00, 0xC000]),
    "bfloat16": ("half_val", [0x3F80, 0xC000]),
}


class TestAnswers:
    @pytest.mark.parametrize("output_filter", [(), ("y",)])
    def test_half_plus_two(self, standing: Any, output_filter: tuple[str, ...]) -> None:
        response = standing.predict(output_filter=output_filter)
        assert list(response.outputs) == ["y"]
        assert response.outputs["y"].dtype == 1
        assert list(response.outputs["y"].float_val) == [3.0]

    def test_the_model_spec_says_who_answered(self, standing: Any) -> None:
        spec = standing.predict().model_spec
        assert (spec.name, spec.version.value, spec.signature_name) == ("half_plus_two", 123, "serving_default")
        named = standing.predict(signature="serving_default").model_spec
        assert named == spec

    def test_the_highest_version_answers_when_none_is_named(self, standing: Any) -> None:
        response = standing.predict("plus", {"x": [0.0]})
        assert (response.model_spec.version.value, numbers(response, "y")) == (3, [3.0])

    @pytest.mark.parametrize("version", [1, 2, 3])
    def test_a_version_is_named(self, standing: Any, version: int) -> None:
        response = standing.predict("plus", {"x": [0.0]}, version=version)
        assert (response.model_spec.version.value, numbers(response, "y")) == (version, [float(version)])

    @pytest.mark.parametrize(("label", "version"), [("stable", 1), ("canary", 2), ("an odd label!", 3)])
    def test_a_label_is_named(self, standing: Any, label: str, version: int) -> None:
        response = standing.predict("plus", {"x": [0.0]}, label=label)
        assert (response.model_spec.version.value, numbers(response, "y")) == (version, [float(version)])

    def test_a_shape_that_the_signature_does_not_have_is_for_the_graph_to_judge(self, standing: Any) -> None:
        assert numbers(standing.predict(inputs={"x": [1.0, 2.0, 3.0]}), "y") == [2.5, 3.0, 3.5]
        assert numbers(standing.predict(inputs={"x": np.float32(2.0)}), "y") == 3.0

    def test_no_rows_are_answered_by_no_rows(self, standing: Any) -> None:
        response = standing.predict(inputs={"x": np.zeros((0, 1), np.float32)})
        assert [dim.size for dim in response.outputs["y"].tensor_shape.dim] == [0, 1]

    def test_every_input_and_every_output(self, standing: Any) -> None:
        response = standing.predict("pair", {"a": [3.0, 5.0], "b": [1.0, 2.0]})
        assert {name: numbers(response, name) for name in response.outputs} == {
            "sum": [4.0, 7.0],
            "difference": [2.0, 3.0],
        }

    def test_the_output_filter_chooses(self, standing: Any) -> None:
        response = standing.predict("pair", {"a": [3.0], "b": [1.0]}, output_filter=["difference"])
        assert list(response.outputs) == ["difference"]

    def test_an_input_with_a_default_may_be_left_out(self, standing: Any) -> None:
        left_out = standing.predict("pair", {"a": [3.0]}, signature="with_default", output_filter=["sum"])
        given = standing.predict("pair", {"a": [3.0], "b": [1.0]}, signature="with_default", output_filter=["sum"])
        assert (numbers(left_out, "sum"), numbers(given, "sum")) == ([13.0], [4.0])

    def test_a_signature_of_another_method_can_be_run_by_predict(self, standing: Any) -> None:
        import tensorflow as tf

        example = tf.train.Example()
        example.features.feature["x"].float_list.value.append(2.0)
        serialized = np.array([example.SerializeToString()], object)
        response = standing.predict(inputs={"inputs": serialized}, signature="regress_x_to_y")
        assert numbers(response, "outputs") == [[3.0]]
        assert response.model_spec.signature_name == "regress_x_to_y"

    def test_a_graph_that_keeps_state_keeps_it_between_requests(self, standing: Any) -> None:
        def count(signature: str, **inputs: Any) -> float:
            value: float = numbers(standing.predict("counter", inputs, signature=signature), "output")
            return value

        count("reset_counter")
        assert count("get_counter") == 0.0
        assert count("incr_counter") == 1.0
        assert count("incr_counter_by", delta=3.0) == 4.0
        assert count("get_counter") == 4.0


class TestTensorsOnTheWire:
    @pytest.mark.parametrize("kind", TYPED_FIELDS)
    def test_typed_fields_come_back_as_typed_fields(self, standing: Any, kind: str) -> None:
        import tensorflow as tf

        field, values = TYPED_FIELDS[kind]
        request = predict_request("many_types", {}, signature=kind)
        tensor = request.inputs["x"]
        tensor.dtype = tf.as_dtype(kind).as_datatype_enum
        tensor.tensor_shape.dim.add(size=2)
        getattr(tensor, field).extend(values)
        response = standing.prediction.Predict(request, timeout=60)
        assert response.outputs["y"] == tensor

    @pytest.mark.parametrize("kind", sorted(set(TYPED_FIELDS) - {"string"}))
    def test_raw_bytes_are_taken_and_answered_in_typed_fields(self, standing: Any, kind: str) -> None:
        import tensorflow as tf

        field, _ = TYPED_FIELDS[kind]
        array = np.array([[1, 0], [1, 1]]).astype(tf.as_dtype(kind).as_numpy_dtype)
        tensor = tf.make_tensor_proto(array)
        tensor.tensor_content = array.tobytes()
        for name in ("half_val", "float_val", field):
            tensor.ClearField(name)
        output = standing.predict("many_types", {"x": tensor}, signature=kind).outputs["y"]
        assert not output.tensor_content
        assert len(getattr(output, field)) == 4 * (2 if kind.startswith("complex") else 1)
        assert np.array_equal(tf.make_ndarray(output), array)

    def test_one_typed_value_stands_for_all_that_follow(self, standing: Any) -> None:
        request = predict_request(inputs={"x": [2.0, 2.0, 2.0]})
        request.inputs["x"].ClearField("tensor_content")
        request.inputs["x"].float_val[:] = [4.0]
        assert numbers(standing.prediction.Predict(request, timeout=60), "y") == [4.0, 4.0, 4.0]

    def test_answers_are_raw_bytes_where_the_flag_says_so(self, optioned: Any) -> None:
        output = optioned.predict(inputs={"x": [2.0, 4.0]}).outputs["y"]
        assert not output.float_val
        assert output.tensor_content == np.array([3.0, 4.0], np.float32).tobytes()

    def test_strings_stay_strings_where_answers_are_raw_bytes(self, optioned: Any) -> None:
        response = optioned.predict("strings", {"text": np.array([b"one", b"\xff"], object)})
        assert numbers(response, "echo") == [b"one", b"\xff"]

    def test_nan_and_infinities_pass(self, standing: Any) -> None:
        values = numbers(standing.predict(inputs={"x": [np.nan, np.inf, -np.inf]}), "y")
        assert np.isnan(values[0])
        assert values[1:] == [np.inf, -np.inf]

    def test_a_request_and_an_answer_may_be_large(self, standing: Any) -> None:
        many = np.zeros(3_000_000, np.float32)
        assert len(standing.predict(inputs={"x": many}).outputs["y"].float_val) == 3_000_000


class TestRefusals:
    @pytest.mark.parametrize(
        ("model", "spec", "code", "message"),
        [
            ("nobody", {}, "NOT_FOUND", "Servable not found for request: Latest(nobody)"),
            ("plus", {"version": 9}, "NOT_FOUND", "Servable not found for request: Specific(plus, 9)"),
            ("plus", {"version": -1}, "NOT_FOUND", "Servable not found for request: Specific(plus, -1)"),
            ("plus", {"label": "none"}, "INVALID_ARGUMENT", "Unrecognized servable version label: none"),
            ("plus", {"signature": "none"}, "FAILED_PRECONDITION", 'Serving signature key "none" not found.'),
            ("", {}, "INVALID_ARGUMENT", "ModelSpec has no name specified."),
        ],
    )
    def test_a_choice_that_is_not_there(
        self, standing: Any, model: str, spec: dict[str, Any], code: str, message: str
    ) -> None:
        assert standing.refused(lambda: standing.predict(model, **spec)) == (code, message)

    def test_no_model_spec(self, standing: Any) -> None:
        from tensorflow_serving.apis import predict_pb2

        empty = predict_pb2.PredictRequest()
        found = standing.refused(lambda: standing.prediction.Predict(empty, timeout=60))
        assert found == ("INVALID_ARGUMENT", "Missing ModelSpec")

    def test_no_inputs(self, standing: Any) -> None:
        assert standing.refused(lambda: standing.predict(inputs={})) == (
            "INVALID_ARGUMENT",
            "input size does not match signature: 0!=1 len({}) != len({x}). Sent extra: {}. Missing but required: {x}.",
        )

    def test_an_input_too_many(self, standing: Any) -> None:
        assert standing.refused(lambda: standing.predict(inputs={"x": [1.0], "z": [1.0]})) == (
            "INVALID_ARGUMENT",
            "input size does not match signature: 2!=1 len({x,z}) != len({x}). "
            "Sent extra: {z}. Missing but required: {}.",
        )

    def test_one_of_two_inputs_is_missing(self, standing: Any) -> None:
        code, message = standing.refused(lambda: standing.predict("pair", {"a": [1.0]}))
        assert code == "INVALID_ARGUMENT"
        assert message.startswith("input size does not match signature: 1!=2 len({a}) != len({")
        assert message.endswith("Sent extra: {}. Missing but required: {b}.")

    def test_an_input_of_another_name(self, standing: Any) -> None:
        code, message = standing.refused(lambda: standing.predict(inputs={"z": [1.0]}))
        assert code == "INVALID_ARGUMENT"
        assert "z" in message
        assert "x" in message

    @pytest.mark.parametrize(
        ("output_filter", "message"),
        [
            (["z"], "output tensor alias not found in signature: z Outputs expected to be in the set {y}."),
            (["y", "y"], "duplicate output tensor alias: y"),
        ],
    )
    def test_output_filters_that_do_not_fit(self, standing: Any, output_filter: list[str], message: str) -> None:
        found = standing.refused(lambda: standing.predict(output_filter=output_filter))
        assert found == ("INVALID_ARGUMENT", message)

    @pytest.mark.parametrize("kind", [np.float64, np.int32, np.uint8, np.bool_])
    def test_another_type(self, standing: Any, kind: type[Any]) -> None:
        assert standing.refused(lambda: standing.predict(inputs={"x": np.ones(2, kind)}))[0] == "INVALID_ARGUMENT"

    def test_a_rank_that_the_graph_cannot_use(self, standing: Any) -> None:
        # The graph sums over axis 1.
        code, _ = standing.refused(lambda: standing.predict("wide", {"x": np.zeros(3, np.float32)}))
        assert code == "INVALID_ARGUMENT"

    def test_shapes_that_do_not_go_together(self, standing: Any) -> None:
        code, message = standing.refused(lambda: standing.predict("pair", {"a": [1.0, 2.0], "b": [1.0, 2.0, 3.0]}))
        assert code == "INVALID_ARGUMENT"
        assert "Incompatible shapes: [2] vs. [3]" in message

    def test_bytes_that_do_not_fill_their_shape(self, standing: Any) -> None:
        request = predict_request(inputs={"x": [1.0, 2.0]})
        request.inputs["x"].ClearField("float_val")
        request.inputs["x"].tensor_content = b"short"
        found = standing.refused(lambda: standing.prediction.Predict(request, timeout=60))
        assert found == ("INVALID_ARGUMENT", "tensor parsing error: x")

    def test_a_message_of_more_than_1024_characters_is_cut(self, standing: Any) -> None:
        code, message = standing.refused(lambda: standing.predict("n" * 5000))
        assert code == "NOT_FOUND"
        assert message == f"Servable not found for request: Latest({'n' * 5000}"[:1024] + "...TRUNCATED"


class TestDeadlines:
    def test_a_request_ends_at_its_deadline_and_so_does_its_work(self, standing: Any) -> None:
        code, _ = standing.refused(lambda: standing.predict("endless", {"x": [1.0]}, timeout=0.5))
        assert code == "DEADLINE_EXCEEDED"

    def test_what_passed_its_deadline_does_not_occupy_the_server(self, standing: Any) -> None:
        # More than a server has threads for gRPC (four for each CPU, at most): they are all free again.
        import os

        for _ in range(4 * (os.cpu_count() or 1) + 4):
            standing.refused(lambda: standing.predict("endless", {"x": [1.0]}, timeout=0.05))

    def test_a_slow_request_within_its_deadline_is_answered(self, standing: Any) -> None:
        assert numbers(standing.predict("slow", {"x": [1.0]}), "y") == [1.0]
