"""A model server's client for tests: every call of both protocols, made with tensorflow-serving-api's own messages.

Its place in the flow: what a test holds in its hand. Each refusal is followed by a good request,
so no test can overlook that a bad one did harm.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.message import Message

RESIDENT = "half_plus_two"
_TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True)
class RestAnswer:
    """What came back on the REST port."""

    code: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        content = self.json
        assert set(content) == {"error"}, content
        message: str = content["error"]
        return message


class Client:
    """One server seen by one client; `refused` and `rest_refused` check that it goes on serving.

    Args:
        rest_port: REST's port on the loopback, 0 for none.
        channel: an open channel to gRPC's target.
        target: that target, for tests that open channels or sockets of their own.
        good_rows: how many rows the good request has that follows a refusal.
    """

    def __init__(self, *, rest_port: int, channel: grpc.Channel, target: str = "", good_rows: int = 1) -> None:
        from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

        self.rest_port = rest_port
        self.channel = channel
        self.target = target
        self.good_rows = good_rows
        self.prediction = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        self.model = model_service_pb2_grpc.ModelServiceStub(channel)

    # Questions about numbers.

    def predict(
        self,
        model: str = RESIDENT,
        inputs: Mapping[str, Any] | None = None,
        *,
        output_filter: Sequence[str] = (),
        timeout: float = _TIMEOUT_SECONDS,
        **spec: Any,
    ) -> Any:
        request = predict_request(model, inputs, output_filter=output_filter, **spec)
        return self.prediction.Predict(request, timeout=timeout)

    def classify(self, model: str, examples: Sequence[Any] = (), *, context: Any = None, **spec: Any) -> Any:
        from tensorflow_serving.apis import classification_pb2

        request = classification_pb2.ClassificationRequest(input=example_input(examples, context=context))
        fill_spec(request.model_spec, model, **spec)
        return self.prediction.Classify(request, timeout=_TIMEOUT_SECONDS)

    def regress(self, model: str, examples: Sequence[Any] = (), *, context: Any = None, **spec: Any) -> Any:
        from tensorflow_serving.apis import regression_pb2

        request = regression_pb2.RegressionRequest(input=example_input(examples, context=context))
        fill_spec(request.model_spec, model, **spec)
        return self.prediction.Regress(request, timeout=_TIMEOUT_SECONDS)

    def multi_inference(self, tasks: Sequence[tuple[str, str, str]], examples: Sequence[Any] = ()) -> Any:
        """Ask for several (model, signature, method) at once."""
        from tensorflow_serving.apis import inference_pb2

        request = inference_pb2.MultiInferenceRequest(input=example_input(examples))
        for model, signature, method in tasks:
            task = request.tasks.add(method_name=f"tensorflow/serving/{method}")
            fill_spec(task.model_spec, model, signature=signature)
        return self.prediction.MultiInference(request, timeout=_TIMEOUT_SECONDS)

    # Questions about models.

    def status(self, model: str, **spec: Any) -> dict[int, Any]:
        from tensorflow_serving.apis import get_model_status_pb2

        request = get_model_status_pb2.GetModelStatusRequest()
        fill_spec(request.model_spec, model, **spec)
        response = self.model.GetModelStatus(request, timeout=_TIMEOUT_SECONDS)
        return {entry.version: entry for entry in response.model_version_status}

    def states(self, model: str) -> dict[int, str]:
        """Return the state of each version by name; none for a model that is not known."""
        from tensorflow_serving.apis.get_model_status_pb2 import ModelVersionStatus

        try:
            return {version: ModelVersionStatus.State.Name(e.state) for version, e in self.status(model).items()}
        except grpc.RpcError:
            return {}

    def wait_for(self, model: str, expected: Mapping[int, str], *, seconds: float = 60) -> None:
        self.until(
            lambda: self.states(model) == expected, lambda: f"{model}: {self.states(model)}, not {expected}", seconds
        )

    def metadata(self, model: str, *fields: str, **spec: Any) -> Any:
        from tensorflow_serving.apis import get_model_metadata_pb2

        request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=fields)
        fill_spec(request.model_spec, model, **spec)
        return self.prediction.GetModelMetadata(request, timeout=_TIMEOUT_SECONDS)

    def reload(self, *models: Any, metric_names: Sequence[str] = (), timeout: float = _TIMEOUT_SECONDS) -> Any:
        """Send exactly these ModelConfigs as the new configuration."""
        from tensorflow_serving.apis import model_management_pb2

        request = model_management_pb2.ReloadConfigRequest(metric_names=metric_names)
        request.config.model_config_list.config.extend(models)
        request.config.model_config_list.SetInParent()
        return self.model.HandleReloadConfigRequest(request, timeout=timeout)

    def send_bytes(self, method: str, payload: bytes, *, timeout: float = _TIMEOUT_SECONDS) -> bytes:
        """Call "/service/method" with bytes that need be no message at all."""
        call = self.channel.unary_unary(method, request_serializer=bytes, response_deserializer=bytes)
        answer: bytes = call(payload, timeout=timeout)
        return answer

    # REST.

    def rest(
        self,
        path: str,
        body: Any = None,
        *,
        method: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = _TIMEOUT_SECONDS,
    ) -> RestAnswer:
        """Send one request; a body makes it a POST, and what is neither bytes nor text is made JSON."""
        data = body if isinstance(body, bytes | str | None) else json.dumps(body)
        connection = http.client.HTTPConnection("127.0.0.1", self.rest_port, timeout=timeout)
        try:
            connection.request(method or ("GET" if body is None else "POST"), path, data, dict(headers or {}))
            with connection.getresponse() as response:
                found = {name.lower(): value for name, value in response.getheaders()}
                return RestAnswer(response.status, found, response.read())
        finally:
            connection.close()

    def rest_predict(self, model: str, body: Any, **choices: Any) -> RestAnswer:
        return self.rest(f"/v1/models/{model}:predict", body, **choices)

    # Refusals, and that nothing was harmed by them.

    def refused(self, call: Callable[[], Any]) -> tuple[str, str]:
        """Return code and message of a call that must be refused, after a good one was answered."""
        with pytest.raises(grpc.RpcError) as caught:
            call()
        self.assert_serving()
        return caught.value.code().name, caught.value.details() or ""

    def rest_refused(self, path: str, body: Any = None, **choices: Any) -> RestAnswer:
        """Return the answer to a request that must be refused, after a good one was answered."""
        answer = self.rest(path, body, **choices)
        assert answer.code >= 400, answer
        self.assert_serving()
        return answer

    def assert_serving(self) -> None:
        rows = [2.0] * self.good_rows
        good = self.predict(RESIDENT, {"x": np.array(rows, np.float32)})
        assert numbers(good, "y") == [3.0] * self.good_rows
        if self.rest_port:
            answer = self.rest_predict(RESIDENT, {"instances": rows})
            assert (answer.code, answer.json) == (200, {"predictions": [3.0] * self.good_rows})

    @staticmethod
    def until(condition: Callable[[], bool], say: Callable[[], str], seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, say()
            time.sleep(0.03)


def predict_request(
    model: str = RESIDENT, inputs: Mapping[str, Any] | None = None, *, output_filter: Sequence[str] = (), **spec: Any
) -> Any:
    """Return a PredictRequest; a number or a list goes as float32, x = [2] where nothing is given."""
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2

    request = predict_pb2.PredictRequest(output_filter=output_filter)
    fill_spec(request.model_spec, model, **spec)
    for name, value in ({"x": [2.0]} if inputs is None else inputs).items():
        kind = None if isinstance(value, np.ndarray) else np.float32
        tensor = value if isinstance(value, Message) else tf.make_tensor_proto(value, kind)
        request.inputs[name].CopyFrom(tensor)
    return request


def fill_spec(
    spec: Any, model: str, *, version: int | None = None, label: str | None = None, signature: str = ""
) -> None:
    """Fill a ModelSpec."""
    spec.name = model
    spec.signature_name = signature
    if version is not None:
        spec.version.value = version
    if label is not None:
        spec.version_label = label


def example(**features: Any) -> Any:
    """Return a tf.Example; floats, integers and bytes find their lists by their type."""
    import tensorflow as tf

    made = tf.train.Example()
    for name, value in features.items():
        values = value if isinstance(value, list) else [value]
        feature = made.features.feature[name]
        kinds = {float: feature.float_list, int: feature.int64_list, bytes: feature.bytes_list}
        kinds[type(values[0])].value.extend(values)
    return made


def example_input(examples: Sequence[Any], *, context: Any = None) -> Any:
    """Return the Input of Classify, Regress and MultiInference."""
    from tensorflow_serving.apis import input_pb2

    made = input_pb2.Input()
    if context is not None:
        made.example_list_with_context.examples.extend(examples)
        made.example_list_with_context.context.CopyFrom(context)
    else:
        made.example_list.examples.extend(examples)
    return made


def numbers(response: Any, name: str) -> Any:
    """Return an output of a PredictResponse as nested lists."""
    import tensorflow as tf

    return tf.make_ndarray(response.outputs[name]).tolist()
