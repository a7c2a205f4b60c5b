"""What clients ask about models rather than of them: status and metadata.

Its place in the flow: called by the gRPC services and by REST.
"""

from __future__ import annotations

from serving.embedded_server.catalogue import Catalogue, ModelVersion
from serving.embedded_server.model_spec import borrow_for, fill_model_spec
from serving.embedded_server.status import invalid_argument
from serving.embedded_server.transition import Stage
from serving.protos import tfs_pb2

_METADATA_FIELD = "signature_def"
_SIGNATURES_URL = "type.googleapis.com/tensorflow.serving.SignatureDefMap"
_STATES = {
    Stage.NEW: tfs_pb2.ModelVersionStatus.START,
    Stage.LOADING: tfs_pb2.ModelVersionStatus.LOADING,
    Stage.READY: tfs_pb2.ModelVersionStatus.AVAILABLE,
    Stage.UNLOADING: tfs_pb2.ModelVersionStatus.UNLOADING,
    Stage.ENDED: tfs_pb2.ModelVersionStatus.END,
}


def model_status(catalogue: Catalogue, request: tfs_pb2.GetModelStatusRequest) -> tfs_pb2.GetModelStatusResponse:
    """Return the states of all versions of a model, or of the one named; labels are ignored.

    Raises:
        StatusError: no model is named, or there is no such version.
    """
    if not request.HasField("model_spec"):
        raise invalid_argument("Missing ModelSpec")
    spec = request.model_spec
    version = spec.version.value if spec.WhichOneof("version_choice") == "version" else None
    response = tfs_pb2.GetModelStatusResponse()
    for entry in catalogue.status(spec.name, version):
        _fill_status(response.model_version_status.add(), entry)
    return response


def model_metadata(catalogue: Catalogue, request: tfs_pb2.GetModelMetadataRequest) -> tfs_pb2.GetModelMetadataResponse:
    """Return the signatures of a loaded version.

    Raises:
        StatusError: another field is asked for, or there is no such version.
    """
    if not request.metadata_field:
        raise invalid_argument("GetModelMetadataRequest must specify at least one metadata_field")
    for field in request.metadata_field:
        if field != _METADATA_FIELD:
            raise invalid_argument(f"Metadata field {field} is not supported")
    response = tfs_pb2.GetModelMetadataResponse()
    with borrow_for(catalogue, request) as entry:
        fill_model_spec(response.model_spec, entry)
        content = signature_map(entry).SerializeToString()
    response.metadata[_METADATA_FIELD].type_url = _SIGNATURES_URL
    response.metadata[_METADATA_FIELD].value = content
    return response


def signature_map(entry: ModelVersion) -> tfs_pb2.SignatureDefMap:
    """Return every signature of a borrowed version."""
    assert entry.loaded is not None, "only a loaded version can be borrowed"
    signatures = tfs_pb2.SignatureDefMap()
    for key, signature in entry.loaded.signature_defs.items():
        signatures.signature_def[key].CopyFrom(signature)
    return signatures


def _fill_status(status: tfs_pb2.ModelVersionStatus, entry: ModelVersion) -> None:
    status.version = entry.version
    status.state = _STATES[entry.stage]
    if entry.stage is Stage.LOADING and not entry.is_started:
        # Its turn in the queue of loads has not come.
        status.state = tfs_pb2.ModelVersionStatus.START
    error = entry.error if entry.stage is Stage.ENDED else None
    # The real server says OK in so many words, so the field is always there.
    status.status.SetInParent()
    if error is not None:
        status.status.MergeFrom(tfs_pb2.Status(error_code=error.code.name, error_message=error.message))
