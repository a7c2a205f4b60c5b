"""Server reflection (grpc.reflection.v1 and v1alpha): tools such as grpcurl learn what they may ask.

Its place in the flow: beside the model services, where a flag asks for it. The descriptors told are
those of our own messages under the names that the originals have, since tools show names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from google.protobuf import any_pb2, descriptor_pb2, wrappers_pb2
from google.protobuf.descriptor import FileDescriptor

from serving.embedded_server import grpc_health
from serving.embedded_server.grpc_method import DialogueMethod
from serving.embedded_server.status import Code
from serving.protos import health_pb2, reflection_pb2, tfs_pb2

_PACKAGES = ("grpc.reflection.v1", "grpc.reflection.v1alpha")
_METHOD = "ServerReflection/ServerReflectionInfo"
_TFS = "liftgate.tfs"
_SERVING = "tensorflow.serving"
# Those of our messages whose originals are not tensorflow.serving.<same name>.
REAL_NAMES: Mapping[str, str] = {
    "Code": "tensorflow.error.Code",
    "ServableVersionPolicy": "tensorflow.serving.FileSystemStoragePathSourceConfig.ServableVersionPolicy",
    "Status": "tensorflow.serving.StatusProto",
    "Tensor": "tensorflow.TensorProto",
    "TensorShape": "tensorflow.TensorShapeProto",
    **{
        name: f"tensorflow.{name}"
        for name in (
            *("BytesList", "DataType", "Example", "Feature", "FeatureList", "FeatureLists", "Features"),
            *("FloatList", "Int64List", "SequenceExample", "SignatureDef", "TensorInfo"),
        )
    },
}
_SERVICES: Mapping[str, Mapping[str, tuple[str, str]]] = {
    f"{_SERVING}.PredictionService": {
        "Classify": ("ClassificationRequest", "ClassificationResponse"),
        "GetModelMetadata": ("GetModelMetadataRequest", "GetModelMetadataResponse"),
        "MultiInference": ("MultiInferenceRequest", "MultiInferenceResponse"),
        "Predict": ("PredictRequest", "PredictResponse"),
        "Regress": ("RegressionRequest", "RegressionResponse"),
    },
    f"{_SERVING}.ModelService": {
        "GetModelStatus": ("GetModelStatusRequest", "GetModelStatusResponse"),
        "HandleReloadConfigRequest": ("ReloadConfigRequest", "ReloadConfigResponse"),
    },
}


class GrpcReflection:
    """What this server's port offers, as descriptors."""

    def __init__(self) -> None:
        files = [*_tensorflow_files(), _health_file(), *(_reflection_file(package) for package in _PACKAGES)]
        for known in (any_pb2.DESCRIPTOR, wrappers_pb2.DESCRIPTOR):
            files.append(_proto_of(known))
        self._files = {file.name: file for file in files}
        self._file_of_symbol = {symbol: file for file in files for symbol in _symbols(file)}
        self._services = sorted(f"{file.package}.{service.name}" for file in files for service in file.service)

    def methods(self) -> Mapping[str, DialogueMethod]:
        """Return the methods by path."""
        method = DialogueMethod(reflection_pb2.ServerReflectionRequest, self._answer)
        return {f"/{package}.{_METHOD}": method for package in _PACKAGES}

    def _answer(self, request: reflection_pb2.ServerReflectionRequest) -> reflection_pb2.ServerReflectionResponse:
        response = reflection_pb2.ServerReflectionResponse(valid_host=request.host, original_request=request)
        kind = request.WhichOneof("message_request")
        if kind == "list_services":
            for name in self._services:
                response.list_services_response.service.add(name=name)
        elif kind == "file_by_filename":
            self._tell(response, self._files.get(request.file_by_filename), request.file_by_filename)
        elif kind == "file_containing_symbol":
            symbol = request.file_containing_symbol.removeprefix(".")
            self._tell(response, self._file_of_symbol.get(symbol), symbol)
        elif kind == "all_extension_numbers_of_type" and request.all_extension_numbers_of_type in self._file_of_symbol:
            # proto3 messages have no extensions.
            response.all_extension_numbers_response.base_type_name = request.all_extension_numbers_of_type
        else:
            self._tell(response, None, str(kind))
        return response

    def _tell(
        self,
        response: reflection_pb2.ServerReflectionResponse,
        file: descriptor_pb2.FileDescriptorProto | None,
        wanted: str,
    ) -> None:
        if file is None:
            response.error_response.error_code = Code.NOT_FOUND
            response.error_response.error_message = f"{wanted} is not known here."
            return
        told: dict[str, bytes] = {}
        waiting = [file]
        while waiting:
            file = waiting.pop()
            if file.name not in told:
                told[file.name] = file.SerializeToString()
                waiting += [self._files[name] for name in file.dependency]
        response.file_descriptor_response.file_descriptor_proto.extend(told.values())


def _tensorflow_files() -> list[descriptor_pb2.FileDescriptorProto]:
    """Return our one file as three, a package each."""
    source = _proto_of(tfs_pb2.DESCRIPTOR)
    _rename_types(source.message_type, _real_type_name)
    files = {
        package: descriptor_pb2.FileDescriptorProto(
            name=f"{package.replace('.', '/')}/liftgate.proto", package=package, syntax="proto3"
        )
        for package in ("tensorflow", "tensorflow.error", _SERVING)
    }
    for kind in ("message_type", "enum_type"):
        for item in getattr(source, kind):
            package, *outer, name = _real_name_parts(item.name)
            item.name = name
            # Only messages lie inside another one.
            target: Any = files[package].message_type.add(name=outer[0]) if outer else files[package]
            getattr(target, "nested_type" if outer else kind).append(item)
    serving = files[_SERVING]
    serving.dependency.extend([*source.dependency, files["tensorflow"].name, files["tensorflow.error"].name])
    for full_name, methods in _SERVICES.items():
        service = serving.service.add(name=full_name.rpartition(".")[2])
        for name, (request, response) in methods.items():
            service.method.add(name=name, input_type=f".{_SERVING}.{request}", output_type=f".{_SERVING}.{response}")
    return list(files.values())


def _health_file() -> descriptor_pb2.FileDescriptorProto:
    package, _, name = grpc_health.SERVICE.rpartition(".")
    file = _moved(health_pb2.DESCRIPTOR, package)
    file.service.add(name=name).method.add(
        name="Check", input_type=f".{package}.HealthCheckRequest", output_type=f".{package}.HealthCheckResponse"
    )
    return file


def _reflection_file(package: str) -> descriptor_pb2.FileDescriptorProto:
    file = _moved(reflection_pb2.DESCRIPTOR, package)
    service, _, method = _METHOD.partition("/")
    file.service.add(name=service).method.add(
        name=method,
        input_type=f".{package}.ServerReflectionRequest",
        output_type=f".{package}.ServerReflectionResponse",
        client_streaming=True,
        server_streaming=True,
    )
    return file


def _moved(descriptor: FileDescriptor, package: str) -> descriptor_pb2.FileDescriptorProto:
    file = _proto_of(descriptor)
    _rename_types(file.message_type, lambda name: name.replace(f".{descriptor.package}.", f".{package}."))
    file.package = package
    file.name = f"{package.replace('.', '/')}/liftgate.proto"
    return file


def _proto_of(descriptor: FileDescriptor) -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto()
    descriptor.CopyToProto(file)
    return file


def _rename_types(messages: Any, renamed: Callable[[str], str]) -> None:
    for message in messages:
        for field in message.field:
            # Set to "" it would count as set.
            if field.type_name:
                field.type_name = renamed(field.type_name)
        _rename_types(message.nested_type, renamed)


def _real_type_name(type_name: str) -> str:
    own = type_name.removeprefix(f".{_TFS}.")
    if own == type_name:
        return type_name
    name, dot, nested = own.partition(".")
    return f".{REAL_NAMES.get(name, f'{_SERVING}.{name}')}{dot}{nested}"


def _real_name_parts(name: str) -> list[str]:
    """Return a package, the message that an original lies in if there is one, and its name."""
    words = REAL_NAMES.get(name, f"{_SERVING}.{name}").split(".")
    packages = [word for word in words if word.islower()]
    return [".".join(packages), *words[len(packages) :]]


def _symbols(file: descriptor_pb2.FileDescriptorProto) -> Iterable[str]:
    def inside(prefix: str, messages: Any) -> Iterable[str]:
        for message in messages:
            name = f"{prefix}.{message.name}"
            yield name
            yield from (f"{name}.{enum.name}" for enum in message.enum_type)
            yield from inside(name, message.nested_type)

    yield from inside(file.package, file.message_type)
    yield from (f"{file.package}.{enum.name}" for enum in file.enum_type)
    for service in file.service:
        yield f"{file.package}.{service.name}"
        yield from (f"{file.package}.{service.name}.{method.name}" for method in service.method)
