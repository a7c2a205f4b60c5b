"""What the operating system says of the model server's memory: its process, its control group, the machine.

Its place in the flow: the step runner reads it before a version is loaded and after; memory_budget
judges. The server's process is found through the Unix socket that it listens on.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from serving.memory_budget import MemoryReading

_V1_LIMIT, _V1_USAGE, _V1_INACTIVE = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
_V2_LIMIT, _V2_USAGE, _V2_INACTIVE = "memory.max", "memory.current", "inactive_file"
# A control group of version 1 without a limit says a number near the largest that there is.
_NO_LIMIT_BYTES = 1 << 60


class ServerMemory:
    """The memory of the model server at `address`.

    Args:
        address: "unix:/absolute/socket" or "host:port"; the process is known for a socket only.
        limit_bytes: the server's limit as the operator set it; it comes before what the system says.
        proc: where /proc is mounted.
        cgroup: where the control groups are mounted.
    """

    def __init__(
        self,
        address: str,
        *,
        limit_bytes: int | None = None,
        proc: Path = Path("/proc"),
        cgroup: Path = Path("/sys/fs/cgroup"),
    ) -> None:
        self._address = address
        self._limit_bytes = limit_bytes
        self._proc = proc
        self._cgroup = cgroup

    def read(self) -> MemoryReading:
        """Return what is known now: the narrowest of the set limit, the control group and the machine."""
        pid = server_pid(self._address)
        server_bytes = self._resident_bytes(pid) if pid is not None else None
        available = self._machine_bytes("MemAvailable")
        found: list[tuple[int, int | None, str]] = []
        if available is not None:
            found.append((available, self._machine_bytes("MemTotal"), "the machine's"))
        if self._limit_bytes is not None and server_bytes is not None:
            found.append((self._limit_bytes - server_bytes, self._limit_bytes, "memory_limit_bytes"))
        elif self._limit_bytes is not None:
            found.append((self._limit_bytes, self._limit_bytes, "memory_limit_bytes, the server's own use not known"))
        elif pid is not None:
            found += [(limit - used, limit, "its control group") for limit, used in self._groups(pid)]
        if not found:
            return MemoryReading(headroom_bytes=None, limit_bytes=None, server_bytes=server_bytes, source="not known")
        headroom, limit, source = min(found, key=lambda one: one[0])
        return MemoryReading(headroom_bytes=headroom, limit_bytes=limit, server_bytes=server_bytes, source=source)

    def _groups(self, pid: int) -> Iterator[tuple[int, int]]:
        """Yield limit and use of each control group that the process is in, and of those around it."""
        for line in _lines(self._proc / str(pid) / "cgroup"):
            _, _, rest = line.partition(":")
            controllers, _, path = rest.partition(":")
            if controllers == "":
                yield from self._hierarchy(self._cgroup, path, _V2_LIMIT, _V2_USAGE, _V2_INACTIVE)
            elif "memory" in controllers.split(","):
                yield from self._hierarchy(self._cgroup / "memory", path, _V1_LIMIT, _V1_USAGE, _V1_INACTIVE)

    def _hierarchy(self, root: Path, path: str, limit: str, usage: str, inactive: str) -> Iterator[tuple[int, int]]:
        inner = PurePosixPath(path.lstrip("/"))
        for part in (inner, *inner.parents):
            directory = root / part
            most, used = _number(directory / limit), _number(directory / usage)
            if most is None or used is None or most >= _NO_LIMIT_BYTES:
                continue
            # Pages of files that were read once are given back before anybody is killed.
            given_back = _fields(directory / "memory.stat").get(inactive, 0)
            yield most, max(0, used - given_back)

    def _resident_bytes(self, pid: int) -> int | None:
        kilobytes = _fields(self._proc / str(pid) / "status").get("VmRSS:")
        return kilobytes * 1024 if kilobytes is not None else None

    def _machine_bytes(self, name: str) -> int | None:
        kilobytes = _fields(self._proc / "meminfo").get(f"{name}:")
        return kilobytes * 1024 if kilobytes is not None else None


def server_pid(address: str) -> int | None:
    """Return the process that listens on a Unix socket (unix(7), SO_PEERCRED); None when it cannot be known."""
    if not address.startswith("unix:"):
        return None
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(address.removeprefix("unix:"))
            credentials = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        except OSError:
            return None
    pid = int(struct.unpack("3i", credentials)[0])
    # 0 is a process of another namespace, such as one inside a container.
    return pid if pid > 0 else None


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
