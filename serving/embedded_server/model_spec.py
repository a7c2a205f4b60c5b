"""ModelSpec: which version a request asks for, and what an answer says of the version that gave it.

Its place in the flow: the first and the last step of every request.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TypeAlias

from serving.embedded_server.catalogue import Catalogue, ModelVersion
from serving.embedded_server.status import invalid_argument
from serving.protos import tfs_pb2

Asking: TypeAlias = (
    tfs_pb2.PredictRequest
    | tfs_pb2.ClassificationRequest
    | tfs_pb2.RegressionRequest
    | tfs_pb2.InferenceTask
    | tfs_pb2.GetModelMetadataRequest
)
"""The messages whose model_spec says who is to answer."""


def take_for(catalogue: Catalogue, request: Asking) -> ModelVersion:
    """Return the version that a request names; the caller gives it back to the catalogue.

    Raises:
        StatusError: the request names none, or one that is not there.
    """
    name, version, label = _choice(request)
    return catalogue.take(name, version=version, label=label)


def borrow_for(catalogue: Catalogue, request: Asking) -> AbstractContextManager[ModelVersion]:
    """Return the version that a request names, borrowed for the length of a `with` block.

    Raises:
        StatusError: as `take_for`.
    """
    name, version, label = _choice(request)
    return catalogue.borrow(name, version=version, label=label)


def fill_model_spec(spec: tfs_pb2.ModelSpec, entry: ModelVersion, *, signature_name: str = "") -> None:
    """Write the name and the version that answered."""
    spec.name = entry.model
    spec.version.value = entry.version
    if signature_name:
        spec.signature_name = signature_name


def _choice(request: Asking) -> tuple[str, int | None, str | None]:
    if not request.HasField("model_spec"):
        raise invalid_argument("Missing ModelSpec")
    spec = request.model_spec
    if not spec.name:
        raise invalid_argument("ModelSpec has no name specified.")
    choice = spec.WhichOneof("version_choice")
    if choice is None:
        return spec.name, None, None
    return (spec.name, spec.version.value, None) if choice == "version" else (spec.name, None, spec.version_label)
