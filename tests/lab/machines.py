"""Machines on this machine, for tests: own files, users, processes, sshd, real systemd and a network when asked for."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_SCRIPT = Path(__file__).with_name("machine.sh")
_BOOT_SECONDS = 60.0
_NEW_NETWORK = 0x40000000
_HEAD_ADDRESS = "10.77.0.1"
_BRIDGE = "site"


@dataclass(frozen=True)
class Machine:
    """A machine that answers at its address and port, as `trainer` or `root`."""

    name: str
    address: str
    port: int
    folder: Path
    identity_file: Path
    process: subprocess.Popen[bytes]

    @property
    def known_hosts_line(self) -> str:
        key_type, key, *_ = (self.folder / "ssh_host_ed25519_key.pub").read_text().split()
        place = self.address if self.port == 22 else f"[{self.address}]:{self.port}"
        return f"{place} {key_type} {key}\n"

    def power_off(self) -> None:
        """Cut the power: everything on the machine ends at once, nothing is asked."""
        self.process.kill()
        self.process.wait()
        _remove_control_groups(f"liftgate-{self.name}-{self.port}")

    def cut_off(self) -> None:
        """Pull the cable: nothing comes or goes, and nobody is told."""
        _ip("link", "set", f"to-{self.name}", "down")

    def connect(self) -> None:
        """Plug the cable in."""
        _ip("link", "set", f"to-{self.name}", "up")

    def copy(self, local: Path, remote: str) -> None:
        """Copy a folder's content to the machine as root."""
        pack = subprocess.run(["tar", "-C", str(local), "-c", "."], capture_output=True, check=True)
        unpack = self._ssh(f"mkdir -p {remote} && tar -C {remote} --no-same-owner -x", user="root")
        subprocess.run(unpack, input=pack.stdout, check=True)

    def run(self, command: str, *, user: str = "root") -> subprocess.CompletedProcess[str]:
        """Run a shell command on the machine."""
        return subprocess.run(self._ssh(command, user=user), capture_output=True, text=True, check=False)

    def _ssh(self, command: str, *, user: str) -> list[str]:
        options = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
        login = ["-i", str(self.identity_file), "-p", str(self.port), f"{user}@{self.address}"]
        return ["ssh", *options, *login, command]


class Network:
    """A network that only the thread inside the `with` block and its machines see: a head and a switch.

    Nothing of this machine's own network is touched, and when the last one leaves it is gone.
    """

    def __init__(self) -> None:
        self._kernel = ctypes.CDLL(None, use_errno=True)
        self._outside = -1

    def __enter__(self) -> Self:
        self._outside = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        self._require(self._kernel.unshare(_NEW_NETWORK))
        _ip("link", "set", "lo", "up")
        _ip("link", "add", _BRIDGE, "type", "bridge")
        _ip("address", "add", f"{_HEAD_ADDRESS}/24", "dev", _BRIDGE)
        _ip("link", "set", _BRIDGE, "up")
        return self

    def __exit__(self, *_: object) -> None:
        self._require(self._kernel.setns(self._outside, _NEW_NETWORK))
        os.close(self._outside)

    def attach(self, process: subprocess.Popen[bytes], name: str, address: str) -> None:
        """Lay a cable to a machine that has just been started."""
        # Of a machine whose power was cut the kernel takes the cable away, but in its own time.
        subprocess.run(["ip", "link", "delete", f"to-{name}"], stderr=subprocess.DEVNULL, check=False)
        _wait_for_own_network(process)
        cable = ["link", "add", f"to-{name}", "type", "veth", "peer", "name", "eth0", "netns", str(process.pid)]
        _ip(*cable)
        _ip("link", "set", f"to-{name}", "master", _BRIDGE, "up")
        for words in (("link", "set", "lo", "up"), ("address", "add", f"{address}/24", "dev", "eth0")):
            _ip(*words, inside=process)
        _ip("link", "set", "eth0", "up", inside=process)

    def _require(self, result: int) -> None:
        if result != 0:
            raise OSError(ctypes.get_errno(), "cannot change the network of this thread")


class Lab:
    """Makes machines and ends them; in a network of their own when one is given."""

    def __init__(self, folder: Path, *, network: Network | None = None) -> None:
        self.folder = folder
        self.identity_file = folder / "id_ed25519"
        self._network = network
        self._machines: list[Machine] = []

    def boot(self, name: str, *, systemd: bool = False) -> Machine:
        """Start a machine and wait until its sshd answers.

        In a network of their own machines keep their address and what lies in /srv/liftgate when they are
        booted again after a power cut.
        """
        if not self.identity_file.exists():
            keygen(self.identity_file)
        folder = self.folder / name
        is_new = not folder.exists()
        (folder / "disk").mkdir(parents=True, exist_ok=True)
        if is_new:
            keygen(folder / "ssh_host_ed25519_key")
            shutil.copy(self.identity_file.with_suffix(".pub"), folder / "authorized_keys")
        if self._network is None:
            address, port = "127.0.0.1", _free_port()
        else:
            names = list(dict.fromkeys([*(machine.name for machine in self._machines), name]))
            address, port = f"10.77.0.{11 + names.index(name)}", 22
            (folder / "srv").mkdir(exist_ok=True)
        process = self._start(folder, name, systemd=systemd, port=port)
        machine = Machine(name, address, port, folder, self.identity_file, process)
        self._machines.append(machine)
        if self._network is not None:
            self._network.attach(process, name, address)
        _wait_for_sshd(machine)
        return machine

    def _start(self, folder: Path, name: str, *, systemd: bool, port: int) -> subprocess.Popen[bytes]:
        readable = [Path(sys.executable), Path(sys.executable).resolve(), _SCRIPT]
        readable += [_SCRIPT.parents[2], Path(sys.prefix), Path(sys.base_prefix)]
        command = ["unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child"]
        command += [] if self._network is None else ["--net"]
        command += [str(_SCRIPT), str(folder), name, "systemd" if systemd else "ssh", str(port), *map(str, readable)]
        with (folder / "console.log").open("wb") as console:
            # With the death signal the machine ends with us, even when we are killed.
            return subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *command], stdout=console, stderr=console, stdin=subprocess.DEVNULL
            )

    def close(self) -> None:
        """Power off all machines."""
        for machine in self._machines:
            machine.power_off()


def why_not() -> str | None:
    """Return why machines cannot be made here, or None when they can."""
    if os.geteuid() != 0:
        return "machines of their own need root"
    missing = [tool for tool in ("unshare", "setpriv", "ssh-keygen", "/usr/sbin/sshd") if shutil.which(tool) is None]
    if missing:
        return f"machines of their own need {', '.join(missing)} (Debian: openssh-server openssh-client util-linux)"
    probe = ["unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    done = subprocess.run(probe, capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else f"this machine allows no namespaces: {done.stderr.strip()}"


def why_no_network() -> str | None:
    """Return why machines cannot have a network of their own here, or None when they can."""
    missing = [tool for tool in ("ip", "nsenter") if shutil.which(tool) is None]
    if missing:
        return f"machines with a network of their own need {', '.join(missing)} (Debian: iproute2 util-linux)"
    return why_not()


def why_no_systemd() -> str | None:
    """Return why machines with systemd cannot be made here, or None when they can."""
    missing = [tool for tool in ("systemd-nspawn", "/lib/systemd/systemd") if shutil.which(tool) is None]
    if missing:
        return f"machines with systemd need {', '.join(missing)} (Debian: systemd-container systemd dbus)"
    return why_not()


def keygen(path: Path) -> None:
    """Make an Ed25519 key pair without a passphrase at `path` and `path`.pub."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)], check=True)


def _ip(*words: str, inside: subprocess.Popen[bytes] | None = None) -> None:
    enter = [] if inside is None else ["nsenter", f"--net=/proc/{inside.pid}/ns/net"]
    subprocess.run([*enter, "ip", *words], check=True)


def _wait_for_own_network(process: subprocess.Popen[bytes]) -> None:
    own, deadline = Path("/proc/thread-self/ns/net").readlink(), time.monotonic() + _BOOT_SECONDS
    while Path(f"/proc/{process.pid}/ns/net").readlink() == own:
        if time.monotonic() > deadline:
            raise RuntimeError("the machine got no network of its own")
        time.sleep(0.005)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _remove_control_groups(name: str) -> None:
    """Remove the empty groups that a machine's systemd leaves; the kernel takes a moment to empty them."""
    for hierarchy in (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified")):
        for group, _, _ in os.walk(hierarchy / name, topdown=False):
            for _ in range(100):
                try:
                    Path(group).rmdir()
                    break
                except OSError:
                    time.sleep(0.02)


def _wait_for_sshd(machine: Machine) -> None:
    deadline = time.monotonic() + _BOOT_SECONDS
    while time.monotonic() < deadline and machine.process.poll() is None:
        try:
            with socket.create_connection((machine.address, machine.port), timeout=5) as connection:
                if connection.recv(4) == b"SSH-":
                    return
        except OSError:
            time.sleep(0.05)
    machine.process.send_signal(signal.SIGKILL)
    said = (machine.folder / "console.log").read_text(errors="replace")
    raise RuntimeError(f"machine {machine.name} did not come up: {said[-2000:]}")
