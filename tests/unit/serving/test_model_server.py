from __future__ import annotations

import numpy as np
import pytest
from google.protobuf import text_format

from artifact_sync.errors import InputError, ModelServerError
from serving.model_server import GrpcModelServer, ModelConfig, model_config_text
from serving.model_server.tensors import pixels_to_tensor, tensor_signature, tensor_to_scores
from serving.protos import tfs_pb2


def parsed(text: str) -> tfs_pb2.ModelServerConfig:
    return text_format.Parse(text, tfs_pb2.ModelServerConfig())


def scores_tensor(*shape: int, **values: object) -> tfs_pb2.Tensor:
    tensor = tfs_pb2.Tensor(dtype=tfs_pb2.DT_FLOAT, **values)
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)
    return tensor


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"name": ""}, "needs a name"),
        ({"base_path": "models"}, "absolute base path, found 'models'"),
        ({"versions": ()}, "versions must be there"),
        ({"versions": (2, 2)}, "each once"),
        ({"versions": (-1,)}, "not negative"),
        ({"labels": {"stable": 7}}, r"labels \{'stable': 7\} point outside the versions \(1, 2\)"),
    ],
)
def test_a_configuration_that_no_server_could_follow_is_refused(change: dict[str, object], why: str) -> None:
    whole = {"name": "digits", "base_path": "/models", "versions": (1, 2), "labels": {"stable": 1}}
    with pytest.raises(InputError, match=why):
        ModelConfig(**{**whole, **change})


def test_the_text_names_exactly_the_versions_and_labels() -> None:
    configs = (
        ModelConfig("digits", "/srv/models/digits", (41, 42), {"stable": 41, "canary": 42}),
        ModelConfig("clothes", "/srv/models/clothes", (7,)),
    )
    digits, clothes = parsed(model_config_text(configs)).model_config_list.config
    assert (digits.name, digits.base_path, digits.model_platform) == ("digits", "/srv/models/digits", "tensorflow")
    assert list(digits.model_version_policy.specific.versions) == [41, 42]
    assert dict(digits.version_labels) == {"stable": 41, "canary": 42}
    assert list(clothes.model_version_policy.specific.versions) == [7]


def test_the_text_of_no_configuration_is_a_list_without_models_rather_than_nothing() -> None:
    message = parsed(model_config_text(()))
    assert message.WhichOneof("config") == "model_config_list"
    assert not message.model_config_list.config


def test_pixels_travel_as_raw_bytes() -> None:
    pixels = np.arange(2 * 3 * 4 * 1, dtype=np.uint8).reshape(2, 3, 4, 1)
    tensor = tfs_pb2.Tensor()
    pixels_to_tensor(pixels, tensor)
    assert tensor.dtype == tfs_pb2.DT_UINT8
    assert [dim.size for dim in tensor.tensor_shape.dim] == [2, 3, 4, 1]
    assert tensor.tensor_content == bytes(range(24))


def test_pixels_that_are_not_contiguous_travel_in_row_order() -> None:
    pixels = np.arange(16, dtype=np.uint8).reshape(1, 4, 4, 1)
    tensor = tfs_pb2.Tensor()
    pixels_to_tensor(pixels[:, ::2, ::-1], tensor)
    assert tensor.tensor_content == bytes([3, 2, 1, 0, 11, 10, 9, 8])


@pytest.mark.parametrize("pixels", [np.zeros((1, 4, 4, 1), np.float32), np.zeros((4, 4, 1), np.uint8)])
def test_pixels_of_another_type_or_rank_are_refused(pixels: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"pixels must be uint8 \[batch, height, width, channels\], found"):
        pixels_to_tensor(pixels, tfs_pb2.Tensor())


@pytest.mark.parametrize(
    "values",
    [
        {"float_val": [0.25, 0.75, 0.5, 0.5]},
        {"tensor_content": np.array([0.25, 0.75, 0.5, 0.5], "<f4").tobytes()},
        {"float_val": [0.25, 0.75, 0.5]},
    ],
)
def test_scores_are_read_from_typed_fields_raw_bytes_and_shortened_lists(values: dict[str, object]) -> None:
    scores = tensor_to_scores(scores_tensor(2, 2, **values))
    assert scores.dtype == np.float32
    assert scores.tolist() == [[0.25, 0.75], [0.5, 0.5]]
    scores[0, 0] = 1.0  # an array of its own, not a view of the message


@pytest.mark.parametrize(
    "tensor",
    [
        scores_tensor(4, float_val=[1, 2, 3, 4]),
        scores_tensor(2, 2),
        scores_tensor(1, 2, float_val=[1, 2, 3]),
        tfs_pb2.Tensor(dtype=tfs_pb2.DT_INT64, int64_val=[1]),
    ],
)
def test_scores_that_are_not_a_table_of_floats_are_refused(tensor: tfs_pb2.Tensor) -> None:
    with pytest.raises(ModelServerError, match="Answer refused"):
        tensor_to_scores(tensor)


def test_a_signature_says_any_for_open_dimensions() -> None:
    info = tfs_pb2.TensorInfo(name="pixels:0", dtype=tfs_pb2.DT_UINT8)
    for size in (-1, 28, 28, 1):
        info.tensor_shape.dim.add(size=size)
    assert tensor_signature(info).shape == (None, 28, 28, 1)
    assert tensor_signature(info).dtype == "uint8"
    info.tensor_shape.unknown_rank = True
    assert tensor_signature(info).shape is None


def test_asking_for_a_version_and_a_label_at_once_is_refused_before_anything_is_sent() -> None:
    server = GrpcModelServer("unix:/nowhere")
    with pytest.raises(InputError, match="for a version or for a label, not for both"):
        server.predict("digits", np.zeros((1, 4, 4, 1), np.uint8), version=1, label="stable")
