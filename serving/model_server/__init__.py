"""The model server as its users see it: one protocol, and a client for any TensorFlow Serving.

Its place in the flow: the front end predicts through it, the agent reloads and watches through it,
the gate judges through it. Nothing here imports TensorFlow.
"""

from serving.model_server.channel import ServerTls
from serving.model_server.config_text import model_config_text
from serving.model_server.grpc_client import GrpcModelServer
from serving.model_server.interface import (
    ModelConfig,
    ModelServer,
    ModelSignature,
    Prediction,
    TensorSignature,
    VersionMissingError,
    VersionState,
    VersionStatus,
)

__all__ = [
    "GrpcModelServer",
    "ModelConfig",
    "ModelServer",
    "ModelSignature",
    "Prediction",
    "ServerTls",
    "TensorSignature",
    "VersionMissingError",
    "VersionState",
    "VersionStatus",
    "model_config_text",
]
