"""One Regress request, from message to message.

Its place in the flow: called by the gRPC service, by REST after it has made a message of its JSON,
and by warm-up; the wording of the errors is TensorFlow Serving's.
"""

from __future__ import annotations

from serving.embedded_server.catalogue import ModelVersion
from serving.protos import tfs_pb2


def regress(
    entry: ModelVersion,
    request: tfs_pb2.RegressionRequest,
    *,
    timeout_seconds: float | None,
    is_method_name_checked: bool = False,
) -> tfs_pb2.RegressionResponse:
    """Answer `request` with a version that the caller has borrowed.

    Raises:
        StatusError: the request is refused, or the graph fails.
    """
    raise NotImplementedError
