"""What the operating system says of the model server's memory: its process, its control group, the machine.

Its place in the flow: the step runner reads it before a version is loaded and after; memory_budget
judges. The server's process is found through the Unix socket that it listens on.
"""

from __future__ import annotations

import socket
import struct
from pathlib import Path

from serving.control_groups import bytes_in, memory_of_groups
from serving.memory_budget import MemoryReading


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
        server_bytes = bytes_in(self._proc / str(pid) / "status", "VmRSS") if pid is not None else None
        available = bytes_in(self._proc / "meminfo", "MemAvailable")
        found: list[tuple[int, int | None, str]] = []
        if available is not None:
            found.append((available, bytes_in(self._proc / "meminfo", "MemTotal"), "the machine's"))
        if self._limit_bytes is not None and server_bytes is not None:
            found.append((self._limit_bytes - server_bytes, self._limit_bytes, "memory_limit_bytes"))
        elif self._limit_bytes is not None:
            found.append((self._limit_bytes, self._limit_bytes, "memory_limit_bytes, the server's own use not known"))
        elif pid is not None:
            groups = memory_of_groups(pid, proc=self._proc, cgroup=self._cgroup)
            found += [(limit - used, limit, "its control group") for limit, used in groups]
        if not found:
            return MemoryReading(headroom_bytes=None, limit_bytes=None, server_bytes=server_bytes, source="not known")
        headroom, limit, source = min(found, key=lambda one: one[0])
        return MemoryReading(headroom_bytes=headroom, limit_bytes=limit, server_bytes=server_bytes, source=source)


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
