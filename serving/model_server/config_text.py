"""A server's configuration as a message and as the text file that it reads at start.

Its place in the flow: the agent writes the text beside the models, so that a restarted server comes
back with the same versions, and sends the message to the running one.
"""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf import text_format

from serving.model_server.interface import ModelConfig
from serving.protos import tfs_pb2

_PLATFORM = "tensorflow"


def model_config_message(configs: Iterable[ModelConfig]) -> tfs_pb2.ModelServerConfig:
    """Return the ModelServerConfig that lists `configs`, each with the specific-version policy."""
    message = tfs_pb2.ModelServerConfig()
    message.model_config_list.SetInParent()
    for config in configs:
        entry = message.model_config_list.config.add(
            name=config.name, base_path=config.base_path, model_platform=_PLATFORM
        )
        entry.model_version_policy.specific.versions.extend(config.versions)
        for label, version in config.labels.items():
            entry.version_labels[label] = version
    return message


def model_config_text(configs: Iterable[ModelConfig]) -> str:
    """Return the content of --model_config_file; without configs a server starts with no model."""
    return text_format.MessageToString(model_config_message(configs))
