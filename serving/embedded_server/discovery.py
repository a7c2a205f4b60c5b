"""Which versions lie under a base path, and which of them a policy wants.

Its place in the flow: the lifecycle asks at every poll; TensorFlow Serving's rules: a version is an
entry whose name is wholly an integer, and its number, not its name, is its identity.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from serving.embedded_server.status import not_found

_MAX_VERSION = 2**63 - 1
_INTEGER = re.compile(r"[0-9]+", re.ASCII)


@dataclass(frozen=True)
class VersionPolicy:
    """Which versions to hold: the `latest` newest, or `specific` ones; neither means all."""

    latest: int | None = None
    specific: tuple[int, ...] | None = None


LATEST_ONE = VersionPolicy(latest=1)


@dataclass(frozen=True)
class ServedModel:
    """One model of the configuration."""

    name: str
    base_path: Path
    policy: VersionPolicy = LATEST_ONE
    labels: Mapping[str, int] = field(default_factory=dict)


def find_versions(model: ServedModel) -> dict[int, Path]:
    """Return version → path of every entry of the base path with an integer name.

    Of two names with one number ("001" and "1") the lexicographically last counts.

    Raises:
        StatusError: the base path cannot be listed.
    """
    try:
        names = sorted(entry.name for entry in model.base_path.iterdir())
    except OSError as error:
        raise not_found(
            f"Could not find base path {model.base_path} for servable {model.name} with error {error.strerror}"
        ) from None
    numbers = {name: int(name) for name in names if _INTEGER.fullmatch(name)}
    return {number: model.base_path / name for name, number in numbers.items() if number <= _MAX_VERSION}


def fingerprint(path: Path) -> tuple[tuple[str, int, int], ...]:
    """Return name, size in bytes and time of change in ns of everything below `path`; empty when it is gone.

    Equal fingerprints of two moments mean that nobody wrote in between.
    """
    found = []
    for file in path.rglob("*"):
        with suppress(OSError):
            status = file.stat()
            found.append((str(file), status.st_size, status.st_mtime_ns))
    return tuple(sorted(found))


def choose_versions(found: Mapping[int, Path], policy: VersionPolicy) -> dict[int, Path]:
    """Return the part of `found` that the policy wants; specific versions that are missing are left out."""
    if policy.specific is not None:
        return {version: found[version] for version in policy.specific if version in found}
    newest_first = sorted(found, reverse=True)
    if policy.latest is not None:
        newest_first = newest_first[: max(1, policy.latest)]
    return {version: found[version] for version in newest_first}
