"""What reflection and health tell, without a network."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message

from serving.embedded_server.grpc_health import GrpcHealth
from serving.embedded_server.grpc_reflection import REAL_NAMES, GrpcReflection
from serving.embedded_server.status import Code, StatusError
from serving.protos import health_pb2, reflection_pb2, tfs_pb2

Request = reflection_pb2.ServerReflectionRequest
SERVICES = {
    "tensorflow.serving.PredictionService",
    "tensorflow.serving.ModelService",
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
}


def ask(**request: str) -> reflection_pb2.ServerReflectionResponse:
    method = GrpcReflection().methods()["/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"]
    answer = method.answer(Request(host="here", **request))
    assert isinstance(answer, reflection_pb2.ServerReflectionResponse)
    assert answer.original_request == Request(host="here", **request)
    return answer


def pool_for(symbol: str) -> DescriptorPool:
    """Build what a tool builds of the answer; files come in any order."""
    told = ask(file_containing_symbol=symbol).file_descriptor_response.file_descriptor_proto
    files = {file.name: file for file in map(descriptor_pb2.FileDescriptorProto.FromString, told)}
    pool, done = DescriptorPool(), set[str]()

    def add(name: str) -> None:
        if name not in done:
            done.add(name)
            for needed in files[name].dependency:
                add(needed)
            pool.Add(files[name])

    for name in files:
        add(name)
    return pool


def test_all_services_are_listed() -> None:
    assert {service.name for service in ask(list_services="").list_services_response.service} == SERVICES


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_a_tool_can_build_every_service_from_one_answer(service: str) -> None:
    assert pool_for(service).FindServiceByName(service).methods


def test_types_have_their_real_names_and_our_fields() -> None:
    pool = pool_for("tensorflow.serving.PredictionService.Predict")
    predict = pool.FindServiceByName("tensorflow.serving.PredictionService").FindMethodByName("Predict")
    assert predict.input_type.full_name == "tensorflow.serving.PredictRequest"
    tensor = predict.input_type.fields_by_name["inputs"].message_type.fields_by_name["value"].message_type
    assert tensor.full_name == "tensorflow.TensorProto"
    assert tensor.fields_by_name["dtype"].enum_type.full_name == "tensorflow.DataType"
    fields = {field.name: field.number for field in tensor.fields}
    assert fields == {field.name: field.number for field in tfs_pb2.Tensor.DESCRIPTOR.fields}
    assert tensor.fields_by_name["tensor_shape"].message_type.full_name == "tensorflow.TensorShapeProto"


def test_real_names_are_those_that_the_messages_say_they_have(repository: Path) -> None:
    text = (repository / "serving/protos/tfs.proto").read_text()
    said = dict(re.findall(r"^// (tensorflow[\w.]*\w)[^\n]*\n(?:message|enum) (\w+)", text, flags=re.MULTILINE))
    assert {*said.values()} == {*tfs_pb2.DESCRIPTOR.message_types_by_name, *tfs_pb2.DESCRIPTOR.enum_types_by_name}
    told = {real: REAL_NAMES.get(own, f"tensorflow.serving.{own}") for real, own in said.items()}
    assert [(real, name) for real, name in told.items() if real != name] == []


@pytest.mark.parametrize(
    "request_fields",
    [
        {"file_by_filename": "nothing.proto"},
        {"file_containing_symbol": "liftgate.tfs.Tensor"},
        {"all_extension_numbers_of_type": "nothing.Message"},
        {},
    ],
)
def test_what_is_not_there_is_said_to_be_unknown(request_fields: dict[str, str]) -> None:
    assert ask(**request_fields).error_response.error_code == Code.NOT_FOUND


def test_files_are_found_by_name_and_messages_have_no_extensions() -> None:
    told = ask(file_by_filename="google/protobuf/any.proto").file_descriptor_response.file_descriptor_proto
    assert descriptor_pb2.FileDescriptorProto.FromString(told[0]).package == "google.protobuf"
    extensions = ask(all_extension_numbers_of_type="tensorflow.TensorProto").all_extension_numbers_response
    assert list(extensions.extension_number) == []


def test_health_is_told_for_known_services_until_the_server_leaves() -> None:
    health = GrpcHealth()
    check = health.methods()["/grpc.health.v1.Health/Check"]
    answers: list[Message | StatusError] = []

    def ask_all() -> None:
        for service in ("", "ModelService", "PredictionService", "tensorflow.serving.PredictionService"):
            check.handle(health_pb2.HealthCheckRequest(service=service), None, answers.append)

    ask_all()
    health.leave()
    ask_all()
    statuses = [answer.status for answer in answers if isinstance(answer, health_pb2.HealthCheckResponse)]
    assert statuses == [health_pb2.HealthCheckResponse.SERVING] * 3 + [health_pb2.HealthCheckResponse.NOT_SERVING] * 3
    errors = [answer.code for answer in answers if isinstance(answer, StatusError)]
    assert errors == [Code.NOT_FOUND] * 2
