"""ModelSpec: which version a request asks for, and what an answer says of the version that gave it.

Its place in the flow: the first and the last step of every request.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

from serving.embedded_server.catalogue import Catalogue, ModelVersion
from serving.embedded_server.status import invalid_argument
from serving.protos import tfs_pb2


def borrow_for(
    catalogue: Catalogue, request: tfs_pb2.PredictRequest | tfs_pb2.GetModelMetadataRequest
) -> AbstractContextManager[ModelVersion]:
    """Return the version that a request names, borrowed for the length of a `with` block.

    Raises:
        StatusError: the request names none, or one that is not there.
    """
    if not request.HasField("model_spec"):
        raise invalid_argument("Missing ModelSpec")
    spec = request.model_spec
    if not spec.name:
        raise invalid_argument("ModelSpec has no name specified.")
    choice = spec.WhichOneof("version_choice")
    return catalogue.borrow(
        spec.name,
        version=spec.version.value if choice == "version" else None,
        label=spec.version_label if choice == "version_label" else None,
    )


def fill_model_spec(spec: tfs_pb2.ModelSpec, entry: ModelVersion, *, signature_name: str = "") -> None:
    """Write the name and the version that answered."""
    spec.name = entry.model
    spec.version.value = entry.version
    if signature_name:
        spec.signature_name = signature_name
