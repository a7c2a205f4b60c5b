"""The health service of gRPC (grpc.health.v1.Health): Check. Watch is answered UNIMPLEMENTED.

Its place in the flow: beside the model services on the same port. Load balancers and Kubernetes ask
it; it says SERVING until the server drains.
"""

from __future__ import annotations

from collections.abc import Mapping

from serving.embedded_server.grpc_method import Method, Reply
from serving.embedded_server.status import not_found
from serving.protos import health_pb2

SERVICE = "grpc.health.v1.Health"
_KNOWN_SERVICES = frozenset(("", "ModelService", "PredictionService"))


class GrpcHealth:
    """Whether this server serves; known services are those of the real server, without their package."""

    def __init__(self) -> None:
        self._status = health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)

    def methods(self) -> Mapping[str, Method]:
        """Return the methods by path."""
        return {f"/{SERVICE}/Check": Method(health_pb2.HealthCheckRequest, self._check, is_blocking=False)}

    def leave(self) -> None:
        """Say NOT_SERVING from now on."""
        self._status = health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.NOT_SERVING)

    def _check(self, request: health_pb2.HealthCheckRequest, _: float | None, reply: Reply) -> None:
        is_known = request.service in _KNOWN_SERVICES
        reply(self._status if is_known else not_found(f"Service {request.service!r} is not known to the health check."))
