"""What the model server's start-up file names, and what it should name.

Its place in the flow: the agent looks before anything else and writes it before its state, so that a
server that restarts at any moment loads verified versions only, and none that was withdrawn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from google.protobuf import text_format

from serving.protos import tfs_pb2
from serving.rollout_target import labels_without


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


def start_labels(
    wanted: Mapping[str, int], *, last_good: int | None, withdrawn: int | None, is_verified: Callable[[int], bool]
) -> dict[str, int]:
    """Return the labels that a server should start with: those that were accepted, as far as they may be loaded.

    A server that restarts before the labels moved back must not come up with what was withdrawn.
    """
    if not wanted:
        return {}
    usable = labels_without(wanted, last_good=last_good, is_usable=lambda one: one != withdrawn and is_verified(one))
    labels = {label: version for label, version in usable.items() if is_verified(version)}
    if "stable" not in labels and last_good is not None and is_verified(last_good):
        return {"stable": last_good}
    return labels
