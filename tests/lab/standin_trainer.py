"""A trainer without TensorFlow: steps, checkpoints, SIGTERM, progress, wishes and run folder as the real one has them.

It reads keys of the configuration otherwise than the real one: `optimization.epochs` are its steps, it fails at step
`data.max_examples`, and at each step from `execution.histograms_every_epochs` on it waits for the file `go` in the run
folder, or for SIGTERM; 0 is never. With TF_CONFIG it trains only as long as it reaches its peers: they meet before
the first step, and whoever finds another one gone ends with the exit code of a lost peer.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

from artifact_sync.manifest import build_manifest
from artifact_sync.run_folder import RunFolder
from training_cluster.cluster import INTERRUPTED_EXIT_CODE, PEER_LOST_EXIT_CODE
from training_cluster.config.training_config import TrainingConfig, load_config

_PEER_SECONDS = 2.0
_MEETING_SECONDS = 20.0
# So long the others can hear that it stops.
_PARTING_SECONDS = 0.3


class Peers:
    """The other workers, in step with this one: each listens at its address, and says at which step it is."""

    def __init__(self, tf_config: str) -> None:
        document = json.loads(tf_config) if tf_config else {"cluster": {"worker": [""]}, "task": {"index": 0}}
        self.index = int(document["task"]["index"])
        addresses = document["cluster"]["worker"]
        self.others = [address for index, address in enumerate(addresses) if index != self.index]
        self.step = 0
        self.is_asked_to_stop = False
        if self.others:
            listening = socket.create_server(("", int(addresses[self.index].rpartition(":")[2])))
            threading.Thread(target=self._answer, args=(listening,), daemon=True).start()

    def meet(self) -> bool:
        """Wait for all and go on from the newest checkpoint that any has; return whether they came."""
        deadline = time.monotonic() + _MEETING_SECONDS
        while None in (steps := self.steps()):
            if time.monotonic() > deadline or self.is_asked_to_stop:
                return False
            time.sleep(0.05)
        self.step = max(self.step, *[step for step in steps if step is not None], 0)
        return True

    def wait_for_all(self) -> bool:
        """Wait until all have done this step; return whether they are there."""
        while not self.is_asked_to_stop:
            steps = self.steps()
            if None in steps:
                return False
            if all(step is not None and step >= self.step for step in steps):
                return True
            time.sleep(0.01)
        return True

    def steps(self) -> list[int | None]:
        return [self._ask(address) for address in self.others]

    def _ask(self, address: str) -> int | None:
        host, _, port = address.rpartition(":")
        try:
            with socket.create_connection((host, int(port)), timeout=_PEER_SECONDS) as connection:
                connection.settimeout(_PEER_SECONDS)
                said = connection.recv(16).decode()
        except OSError:
            return None
        if said == "stop":
            self.is_asked_to_stop = True
            return self.step
        return int(said) if said else None

    def _answer(self, listening: socket.socket) -> None:
        while True:
            connection, _ = listening.accept()
            with connection, contextlib.suppress(OSError):
                connection.sendall(b"stop" if self.is_asked_to_stop else str(self.step).encode())


def main() -> int:
    parser = argparse.ArgumentParser()
    for name in ("run-dir", "run-id", "model", "config", "data", "trained-by"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--spread")
    options = parser.parse_args()
    config = load_config(Path(options.config))
    run = RunFolder(Path(options.run_dir))
    run.checkpoints.mkdir(parents=True, exist_ok=True)
    peers = Peers(os.environ.get("TF_CONFIG", ""))

    def stop(_number: int, _frame: object) -> None:
        peers.is_asked_to_stop = True

    signal.signal(signal.SIGTERM, stop)
    peers.step = max((int(path.stem.removeprefix("step-")) for path in run.checkpoints.iterdir()), default=0)
    sys.stderr.write(f"starting at step {peers.step} as process {os.getpid()}\n")
    with (run.path / "starts").open("a") as starts:
        starts.write(f"{peers.step}\n")
    if not peers.meet():
        return INTERRUPTED_EXIT_CODE if peers.is_asked_to_stop else PEER_LOST_EXIT_CODE
    code = train(run, config, peers)
    if code is None and peers.index == 0:
        is_folder = not options.data.startswith("s3://")
        data = Path(options.data, "data_manifest.json").read_bytes() if is_folder else b"streamed"
        finish(run.path, options.run_id, data=data)
    return code or 0


def train(run: RunFolder, config: TrainingConfig, peers: Peers) -> int | None:
    steps, hold_at = config.optimization.epochs, config.execution.histograms_every_epochs
    if peers.index == 0:
        (run.path / "started.json").write_text("{}")
    for step in range(peers.step + 1, steps + 1):
        if step == config.data.max_examples:
            sys.stderr.write("the loss is not a number\n")
            return 1
        name = f"progress-{peers.index}.jsonl" if peers.index else "progress.jsonl"
        with (run.path / name).open("a") as progress:
            progress.write(json.dumps({"step": step, "total_steps": steps, "loss": 1 / step}) + "\n")
        (run.checkpoints / f"step-{step:010d}.checkpoint").touch()
        peers.step = step
        is_there = peers.wait_for_all()
        is_held = 0 < hold_at <= step
        while is_held and is_there and not (run.path / "go").exists() and not peers.is_asked_to_stop:
            fulfil_wishes(run)
            time.sleep(0.02)
            is_there = None not in peers.steps()
        if peers.is_asked_to_stop:
            time.sleep(_PARTING_SECONDS if peers.others else 0)
            return INTERRUPTED_EXIT_CODE
        if not is_there and step < steps:
            return PEER_LOST_EXIT_CODE
    return None


def fulfil_wishes(run: RunFolder) -> None:
    for wish in run.control.glob("[!.]*"):
        run.events.mkdir(exist_ok=True)
        (run.events / wish.name).write_text(wish.read_text())
        wish.unlink()


def finish(run_dir: Path, run_id: str, *, data: bytes) -> None:
    export = run_dir / "export"
    (export / "variables").mkdir(parents=True, exist_ok=True)
    (export / "saved_model.pb").write_bytes(data)
    (export / "variables" / "variables.data-00000-of-00001").write_bytes(run_id.encode() * 100_000)
    variant = run_dir / "variants" / f"{run_id}-bfloat16"
    (variant / "export").mkdir(parents=True, exist_ok=True)
    (variant / "export" / "saved_model.pb").write_bytes(data)
    (run_dir / "run.json").write_text("{}")
    (run_dir / "manifest.json").write_bytes(build_manifest(export).to_json())


if __name__ == "__main__":
    sys.exit(main())
