"""TensorBoard over runs: of this machine, or of the host on which a run goes on.

Its place in the flow: `liftgate tensorboard` waits inside one of these. TensorBoard listens on loopback only,
here and on the host, and ends with the `with` block, also when this process is killed.
"""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from artifact_sync.errors import SettingsError, TrainingError
from training_cluster.hosts.attachment import AttachedHost
from training_cluster.hosts.port_forward import PortForward

_LOOPBACK = "127.0.0.1"
_STARTING_SECONDS = 120.0
_LISTENING = re.compile(r"TensorBoard \S+ at http://[^:]+:(\d+)/")
_TAKEN = "could not bind"


@contextmanager
def local_board(events: Mapping[str, Path], *, port: int = 0) -> Iterator[str]:
    """Start TensorBoard over folders of events, by the name that each shall have, and yield its address.

    Raises:
        SettingsError: the port is taken.
        TrainingError: TensorBoard did not come up.
    """
    command = _board(sys.executable, {name: str(folder) for name, folder in events.items()}, port=port)
    # Its input is a pipe that only we hold, so it ends with us.
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=_source_dir())
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        found = _port_of(process.stdout, where="this machine", port=port)
        # A full pipe would hold it up.
        threading.Thread(target=process.stdout.read, name="tensorboard-says", daemon=True).start()
        yield f"http://{_LOOPBACK}:{found}/"
    finally:
        process.stdin.close()
        process.wait()


@contextmanager
def remote_board(host: AttachedHost, *, run_id: str, port: int = 0) -> Iterator[str]:
    """Start TensorBoard on the host where a run goes on, and yield an address on this machine that leads there.

    Raises:
        SettingsError: the port is taken.
        TrainingError: the host cannot be reached, or TensorBoard did not come up there.
        TrustError: the host's key is not the pinned one.
    """
    board = _board(host.python, {run_id: str(host.run_dir / "events")}, port=0)
    command = ["env", f"PYTHONPATH={host.app_dir}", *board]
    with host.ssh() as transport, closing(transport.stream(command, silence_seconds=_STARTING_SECONDS)) as lines:
        remote_port = _port_of(lines, where=f"host {host.name}", port=0)
        with PortForward(transport, remote_port=remote_port, local_port=port) as forward:
            yield f"http://{_LOOPBACK}:{forward.port}/"


def _board(python: str, events: Mapping[str, str], *, port: int) -> list[str]:
    specification = ",".join(f"{name}:{folder}" for name, folder in events.items())
    return [
        *[python, "-m", "training_cluster.hosts.board_program", "--logdir_spec", specification],
        *["--host", _LOOPBACK, "--port", str(port), "--reload_interval", "5", "--load_fast", "false"],
    ]


def _port_of(lines: Iterable[str], *, where: str, port: int) -> int:
    """Read what TensorBoard says until it listens, and return where."""
    said: list[str] = []
    for line in lines:
        found = _LISTENING.search(line)
        if found is not None:
            return int(found[1])
        if _TAKEN in line.lower():
            raise SettingsError(f"Port {port} of {where} is taken. Name another with --port.")
        said = [*said[-9:], line.strip()]
    raise TrainingError(f"TensorBoard did not come up on {where}. It said: {' | '.join(said) or 'nothing'}.")


def _source_dir() -> Path:
    # `python -m` finds this package also when Liftgate is not installed but run from its source.
    return Path(__file__).parents[2]
