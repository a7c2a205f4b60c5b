"""Which versions the model server's start-up file names.

Its place in the flow: the agent looks, so that a server that restarts loads verified versions only.
"""

from __future__ import annotations

from pathlib import Path

from google.protobuf import text_format

from serving.protos import tfs_pb2


def read_start_config(path: Path) -> bytes | None:
    """Return the file's bytes; None when there is no file."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def versions_named(config: bytes | None, *, model: str) -> frozenset[int]:
    """Return the versions of `model` that the file would load; none when it cannot be parsed."""
    message = tfs_pb2.ModelServerConfig()
    try:
        text_format.Parse((config or b"").decode("utf-8"), message)
    except (text_format.ParseError, UnicodeDecodeError):
        return frozenset()
    entries = [entry for entry in message.model_config_list.config if entry.name == model]
    return frozenset(version for entry in entries for version in entry.model_version_policy.specific.versions)
