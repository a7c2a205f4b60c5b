"""What Linux says of memory: limits and use of a process's control groups, and the fields of /proc.

Its place in the flow: the agent reads it of the model server's process before a version is loaded, the
embedded server of itself before a large run. Elsewhere than on Linux nothing is known.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_V2 = ("memory.max", "memory.current", "inactive_file")
# A control group of version 1 without a limit says a number near the largest that there is.
_NO_LIMIT_BYTES = 1 << 60


def memory_of_groups(
    process: int | str, *, proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")
) -> Iterator[tuple[int, int]]:
    """Yield limit and use, in bytes, of each control group that a process is in, and of those around it.

    Args:
        process: its number, or "self".
        proc: where /proc is mounted.
        cgroup: where the control groups are mounted, of version 1, 2 or both.
    """
    for line in _lines(proc / str(process) / "cgroup"):
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":
            yield from _hierarchy(cgroup, path, *_V2)
        elif "memory" in controllers.split(","):
            yield from _hierarchy(cgroup / "memory", path, *_V1)


def bytes_in(path: Path, name: str) -> int | None:
    """Return a field of a file of /proc that counts in kB, such as VmRSS of status; None where it is not there."""
    kilobytes = _fields(path).get(f"{name}:")
    return kilobytes * 1024 if kilobytes is not None else None


def _hierarchy(root: Path, path: str, limit: str, usage: str, inactive: str) -> Iterator[tuple[int, int]]:
    inner = PurePosixPath(path.lstrip("/"))
    for part in (inner, *inner.parents):
        directory = root / part
        most, used = _number(directory / limit), _number(directory / usage)
        if most is None or used is None or most >= _NO_LIMIT_BYTES:
            continue
        # Pages of files that were read once are given back before anybody is killed.
        given_back = _fields(directory / "memory.stat").get(inactive, 0)
        yield most, max(0, used - given_back)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _number(path: Path) -> int | None:
    lines = _lines(path)
    return int(lines[0]) if lines and lines[0].isdecimal() else None


def _fields(path: Path) -> dict[str, int]:
    found = {}
    for line in _lines(path):
        words = line.split()
        if len(words) >= 2 and words[1].isdecimal():
            found[words[0]] = int(words[1])
    return found
