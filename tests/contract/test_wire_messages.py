"""Liftgate's own messages are TensorFlow Serving's: same numbers, same kinds, for every field they have."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from serving.protos import health_pb2, runtime_pb2, tfs_pb2

APIS, CORE = "tensorflow_serving.apis.", "tensorflow.core."
CONFIG = "tensorflow_serving.config."
OWN = (tfs_pb2, runtime_pb2, health_pb2)
ORIGINALS = {
    "Tensor": (CORE + "framework.tensor_pb2", "TensorProto"),
    "TensorShape": (CORE + "framework.tensor_shape_pb2", "TensorShapeProto"),
    "TensorShape.Dim": (CORE + "framework.tensor_shape_pb2", "TensorShapeProto.Dim"),
    "ModelSpec": (APIS + "model_pb2", "ModelSpec"),
    "PredictRequest": (APIS + "predict_pb2", "PredictRequest"),
    "PredictResponse": (APIS + "predict_pb2", "PredictResponse"),
    "Status": (APIS + "status_pb2", "StatusProto"),
    "GetModelStatusRequest": (APIS + "get_model_status_pb2", "GetModelStatusRequest"),
    "ModelVersionStatus": (APIS + "get_model_status_pb2", "ModelVersionStatus"),
    "GetModelStatusResponse": (APIS + "get_model_status_pb2", "GetModelStatusResponse"),
    "GetModelMetadataRequest": (APIS + "get_model_metadata_pb2", "GetModelMetadataRequest"),
    "GetModelMetadataResponse": (APIS + "get_model_metadata_pb2", "GetModelMetadataResponse"),
    "SignatureDefMap": (APIS + "get_model_metadata_pb2", "SignatureDefMap"),
    "ReloadConfigRequest": (APIS + "model_management_pb2", "ReloadConfigRequest"),
    "ReloadConfigResponse": (APIS + "model_management_pb2", "ReloadConfigResponse"),
    "Metric": (APIS + "model_management_pb2", "Metric"),
    "ModelServerConfig": (CONFIG + "model_server_config_pb2", "ModelServerConfig"),
    "ModelConfigList": (CONFIG + "model_server_config_pb2", "ModelConfigList"),
    "ModelConfig": (CONFIG + "model_server_config_pb2", "ModelConfig"),
    "LoggingConfig": (CONFIG + "logging_config_pb2", "LoggingConfig"),
    "LogCollectorConfig": (CONFIG + "log_collector_config_pb2", "LogCollectorConfig"),
    "SamplingConfig": (CONFIG + "logging_config_pb2", "SamplingConfig"),
    "ServableVersionPolicy": (
        CONFIG + "file_system_storage_path_source_pb2",
        "FileSystemStoragePathSourceConfig.ServableVersionPolicy",
    ),
    "ServableVersionPolicy.Latest": (
        CONFIG + "file_system_storage_path_source_pb2",
        "FileSystemStoragePathSourceConfig.ServableVersionPolicy.Latest",
    ),
    "ServableVersionPolicy.All": (
        CONFIG + "file_system_storage_path_source_pb2",
        "FileSystemStoragePathSourceConfig.ServableVersionPolicy.All",
    ),
    "ServableVersionPolicy.Specific": (
        CONFIG + "file_system_storage_path_source_pb2",
        "FileSystemStoragePathSourceConfig.ServableVersionPolicy.Specific",
    ),
    "TensorInfo": (CORE + "protobuf.meta_graph_pb2", "TensorInfo"),
    "SignatureDef": (CORE + "protobuf.meta_graph_pb2", "SignatureDef"),
    "SessionConfig": (CORE + "protobuf.config_pb2", "ConfigProto"),
    "RunOptions": (CORE + "protobuf.config_pb2", "RunOptions"),
    "RunMetadata": (CORE + "protobuf.config_pb2", "RunMetadata"),
    **{
        name: (CORE + "framework.step_stats_pb2", name)
        for name in ("StepStats", "DeviceStepStats", "NodeExecStats", "AllocatorMemoryUsed")
    },
    **{name: ("grpc_health.v1.health_pb2", name) for name in ("HealthCheckRequest", "HealthCheckResponse")},
    "SaverDef": (CORE + "protobuf.saver_pb2", "SaverDef"),
    "MetaGraph": (CORE + "protobuf.meta_graph_pb2", "MetaGraphDef"),
    **{
        name: (CORE + "example.feature_pb2", name)
        for name in ("BytesList", "FloatList", "Int64List", "Feature", "Features", "FeatureList", "FeatureLists")
    },
    **{name: (CORE + "example.example_pb2", name) for name in ("Example", "SequenceExample")},
    **{name: (APIS + "input_pb2", name) for name in ("ExampleList", "ExampleListWithContext", "Input")},
    **{
        name: (APIS + "classification_pb2", name)
        for name in (
            *("Class", "Classifications", "ClassificationResult"),
            *("ClassificationRequest", "ClassificationResponse"),
        )
    },
    **{
        name: (APIS + "regression_pb2", name)
        for name in ("Regression", "RegressionResult", "RegressionRequest", "RegressionResponse")
    },
    **{
        name: (APIS + "inference_pb2", name)
        for name in ("InferenceTask", "InferenceResult", "MultiInferenceRequest", "MultiInferenceResponse")
    },
    **{
        name: (APIS + "prediction_log_pb2", name)
        for name in ("ClassifyLog", "RegressLog", "PredictLog", "MultiInferenceLog", "PredictionLog")
    },
}
# tensorflow-serving-api leaves these files out; read as text, so that the names count and not the numbers.
WITHOUT_ORIGINALS = {
    "BatchingParameters": [
        *("max_batch_size", "batch_timeout_micros", "max_enqueued_batches", "num_batch_threads", "thread_pool_name"),
        *("allowed_batch_sizes", "pad_variable_length_inputs", "enable_large_batch_splitting"),
        "max_execution_batch_size",
    ],
    "PrometheusConfig": ["enable", "path"],
    "MonitoringConfig": ["prometheus_config"],
    "SSLConfig": ["server_key", "server_cert", "custom_ca", "client_verify"],
}
ENUMS = {
    "DataType": (CORE + "framework.types_pb2", "DataType"),
    "Code": (CORE + "protobuf.error_codes_pb2", "Code"),
    "ModelType": (CONFIG + "model_server_config_pb2", "ModelType"),
    "ModelVersionStatus.State": (APIS + "get_model_status_pb2", "ModelVersionStatus.State"),
    "HealthCheckResponse.ServingStatus": ("grpc_health.v1.health_pb2", "HealthCheckResponse.ServingStatus"),
}


def own_messages() -> dict[str, Any]:
    found: dict[str, Any] = {}

    def add(prefix: str, descriptors: Any) -> None:
        for descriptor in descriptors:
            if not descriptor.GetOptions().map_entry:
                found[prefix + descriptor.name] = descriptor
                add(f"{prefix}{descriptor.name}.", descriptor.nested_types)

    for module in OWN:
        add("", module.DESCRIPTOR.message_types_by_name.values())
    return found


def original(module: str, path: str) -> Any:
    found: Any = importlib.import_module(module)
    for name in path.split("."):
        found = getattr(found, name)
    return found.DESCRIPTOR


def shape_of(field: Any) -> tuple[Any, ...]:
    # On the wire an embedded message and its bytes are one kind, and so are an enumeration and its number.
    same = {field.TYPE_MESSAGE: field.TYPE_BYTES, field.TYPE_ENUM: field.TYPE_INT32}
    return field.number, same.get(field.type, field.type), field.is_repeated


def test_every_message_is_compared() -> None:
    assert set(own_messages()) == set(ORIGINALS) | set(WITHOUT_ORIGINALS)


@pytest.mark.parametrize("name", WITHOUT_ORIGINALS)
def test_messages_that_the_package_lacks_have_the_documented_fields(name: str) -> None:
    names = [field.name for field in sorted(own_messages()[name].fields, key=lambda field: field.number)]
    assert names == WITHOUT_ORIGINALS[name]
    assert [field.number for field in own_messages()[name].fields] == list(range(1, len(names) + 1))


@pytest.mark.parametrize("name", ORIGINALS)
def test_fields_have_the_originals_numbers_and_kinds(name: str) -> None:
    own, theirs = own_messages()[name], original(*ORIGINALS[name]).fields_by_name
    assert {field.name: shape_of(field) for field in own.fields} == {
        field.name: shape_of(theirs[field.name]) for field in own.fields
    }


def test_of_a_choice_only_one_is_set_as_in_the_originals() -> None:
    for name, where in ORIGINALS.items():
        theirs = original(*where).oneofs_by_name
        for choice in own_messages()[name].oneofs:
            members = {field.name for field in theirs[choice.name].fields}
            assert {field.name for field in choice.fields} <= members


@pytest.mark.parametrize("name", ENUMS)
def test_enumerations_have_the_originals_numbers(name: str) -> None:
    outer, _, _ = name.partition(".")
    owner: Any = next(module for module in OWN if hasattr(module, outer))
    for part in name.split("."):
        owner = getattr(owner, part)
    theirs = original(*ENUMS[name]).values_by_name
    assert owner.items()
    assert dict(owner.items()) == {key: theirs[key].number for key, _ in owner.items()}
