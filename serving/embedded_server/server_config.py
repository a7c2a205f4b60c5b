"""ModelServerConfig: from text or message to what the server works with, with TensorFlow Serving's refusals.

Its place in the flow: read at start, at every poll of the config file, and at every reload request.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from google.protobuf import text_format

from serving.embedded_server.discovery import LATEST_ONE, ServedModel, VersionPolicy
from serving.embedded_server.status import Code, StatusError, invalid_argument
from serving.protos import tfs_pb2

_PLATFORM = "tensorflow"


def read_config_file(path: Path) -> tuple[ServedModel, ...] | None:
    """Return the models that a text-format ModelServerConfig file lists; None when it says nothing at all.

    Raises:
        StatusError: it cannot be read or parsed, or a model in it is refused.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StatusError(Code.NOT_FOUND, f"Cannot read the model config file {path}: {error}") from None
    try:
        message = text_format.Parse(text, tfs_pb2.ModelServerConfig())
    except text_format.ParseError as error:
        raise invalid_argument(
            f"Error parsing text-format tensorflow.serving.ModelServerConfig of {path}: {error}"
        ) from None
    return served_models(message) if message.WhichOneof("config") else None


def served_models(config: tfs_pb2.ModelServerConfig, *, served: Collection[str] = ()) -> tuple[ServedModel, ...]:
    """Return the models that a message lists; `served` names those that are served now.

    Raises:
        StatusError: INVALID_ARGUMENT, with what is wrong.
    """
    if config.WhichOneof("config") != "model_config_list":
        raise invalid_argument(
            "ServerModelConfig type not supported by HandleReloadConfigRequest. "
            "Only ModelConfigList is currently supported"
        )
    models: dict[str, ServedModel] = {}
    for entry in config.model_config_list.config:
        if entry.name in models:
            raise invalid_argument(f"Illegal to list model {entry.name} multiple times in config list")
        _check_platform(entry, is_served=entry.name in served)
        models[entry.name] = _served_model(entry)
    return tuple(models.values())


def _served_model(entry: tfs_pb2.ModelConfig) -> ServedModel:
    if entry.HasField("logging_config"):
        raise invalid_argument("No request-logger-creator provided.")
    base_path = Path(entry.base_path)
    if not base_path.is_absolute():
        raise invalid_argument(
            f"Expected model {entry.name} to have an absolute path or URI; got base_path()={entry.base_path}"
        )
    return ServedModel(name=entry.name, base_path=base_path, policy=_policy(entry), labels=dict(entry.version_labels))


def _check_platform(entry: tfs_pb2.ModelConfig, *, is_served: bool) -> None:
    if entry.model_type and entry.model_platform:
        raise invalid_argument(
            "Illegal setting both ModelServerConfig::model_type (deprecated) and ModelServerConfig::model_platform."
        )
    if not entry.model_type and not entry.model_platform:
        raise invalid_argument(
            "Illegal setting neither ModelServerConfig::model_type (deprecated) nor ModelServerConfig::model_platform."
        )
    if entry.model_platform not in ("", _PLATFORM) and is_served:
        raise invalid_argument(
            f"Illegal to change a model's platform. For model {entry.name} platform was {_PLATFORM} and new platform "
            f"requested is {entry.model_platform}"
        )
    if entry.model_platform not in ("", _PLATFORM):
        raise invalid_argument(f"Model {entry.name} requests unsupported platform {entry.model_platform}")


def _policy(entry: tfs_pb2.ModelConfig) -> VersionPolicy:
    policy = entry.model_version_policy
    match policy.WhichOneof("policy_choice"):
        case "all":
            return VersionPolicy()
        case "specific":
            return VersionPolicy(specific=tuple(policy.specific.versions))
        case "latest":
            return VersionPolicy(latest=max(1, policy.latest.num_versions))
        case _:
            return LATEST_ONE
