"""Machines on this machine, for tests: own files, users, process ids, sshd, and real systemd when asked for."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

_SCRIPT = Path(__file__).with_name("machine.sh")
_BOOT_SECONDS = 60.0


@dataclass(frozen=True)
class Machine:
    """A machine that answers on 127.0.0.1 at its own port, as `trainer` or `root`."""

    name: str
    port: int
    folder: Path
    identity_file: Path
    process: subprocess.Popen[bytes]

    @property
    def known_hosts_line(self) -> str:
        key_type, key, *_ = (self.folder / "ssh_host_ed25519_key.pub").read_text().split()
        return f"[127.0.0.1]:{self.port} {key_type} {key}\n"

    def power_off(self) -> None:
        """Cut the power: everything on the machine ends at once, nothing is asked."""
        self.process.kill()
        self.process.wait()
        _remove_control_groups(f"liftgate-{self.name}-{self.port}")

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
        login = ["-i", str(self.identity_file), "-p", str(self.port), f"{user}@127.0.0.1"]
        return ["ssh", *options, *login, command]


class Lab:
    """Makes machines and ends them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.identity_file = folder / "id_ed25519"
        self._machines: list[Machine] = []

    def boot(self, name: str, *, systemd: bool = False) -> Machine:
        """Start a machine and wait until its sshd answers."""
        if not self.identity_file.exists():
            keygen(self.identity_file)
        folder = self.folder / name
        (folder / "disk").mkdir(parents=True)
        keygen(folder / "ssh_host_ed25519_key")
        shutil.copy(self.identity_file.with_suffix(".pub"), folder / "authorized_keys")
        port = _free_port()
        readable = [Path(sys.executable), Path(sys.executable).resolve(), _SCRIPT]
        readable += [_SCRIPT.parents[2], Path(sys.prefix), Path(sys.base_prefix)]
        command = ["unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", str(_SCRIPT)]
        command += [str(folder), name, "systemd" if systemd else "ssh", str(port), *map(str, readable)]
        with (folder / "console.log").open("wb") as console:
            # With the death signal the machine ends with us, even when we are killed.
            process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *command], stdout=console, stderr=console, stdin=subprocess.DEVNULL
            )
        machine = Machine(name, port, folder, self.identity_file, process)
        self._machines.append(machine)
        _wait_for_sshd(machine)
        return machine

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


def why_no_systemd() -> str | None:
    """Return why machines with systemd cannot be made here, or None when they can."""
    missing = [tool for tool in ("systemd-nspawn", "/lib/systemd/systemd") if shutil.which(tool) is None]
    if missing:
        return f"machines with systemd need {', '.join(missing)} (Debian: systemd-container systemd dbus)"
    return why_not()


def keygen(path: Path) -> None:
    """Make an Ed25519 key pair without a passphrase at `path` and `path`.pub."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)], check=True)


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
            with socket.create_connection(("127.0.0.1", machine.port), timeout=5) as connection:
                if connection.recv(4) == b"SSH-":
                    return
        except OSError:
            time.sleep(0.05)
    machine.process.send_signal(signal.SIGKILL)
    said = (machine.folder / "console.log").read_text(errors="replace")
    raise RuntimeError(f"machine {machine.name} did not come up: {said[-2000:]}")
