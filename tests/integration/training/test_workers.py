"""Two workers that train one model together, as two processes on this machine."""

from __future__ import annotations

import json
import socket
from contextlib import ExitStack
from typing import Any


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [listening.getsockname()[1] for listening in sockets]


def test_two_workers_end_at_one_checkpoint_when_one_is_asked_to_end_and_finish_together(
    training: Any, training_lab: Any
) -> None:
    # Each worker has a disk of its own: the second never sees the chief's checkpoints.
    own = [
        training_lab.Training(training.data_dir, training.config_path, training.runs_dir / f"disk-{index}")
        for index in (0, 1)
    ]

    def together() -> list[Any]:
        addresses = [f"127.0.0.1:{port}" for port in _free_ports(2)]
        return [
            own[index].spawn(
                "pair",
                TF_CONFIG=json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}),
            )
            for index in (0, 1)
        ]

    chief, second = together()
    for line in chief.stdout:
        if json.loads(line)["step"] >= 5:
            break
    second.terminate()
    said = chief.communicate()[0].splitlines()
    second.communicate()
    assert (chief.returncode, second.returncode) == (75, 75)
    stopped_at = json.loads(said[-1])["step"]
    assert json.loads(said[-1])["event"] == "interrupted"

    chief, second = together()
    said, error = chief.communicate()
    second.communicate()
    assert (chief.returncode, second.returncode) == (0, 0), error
    assert json.loads(said.splitlines()[0]) | {"at": ""} == {
        "at": "",
        "event": "resumed",
        "step": stopped_at,
        "total_steps": 40,
    }
    run = own[0].folder("pair").read_run()
    assert run.environment["workers"] == "2"
    assert run.metrics["steps"] == 40
    assert not own[1].folder("pair").run_json.exists()
    assert not list(own[1].folder("pair").path.glob("checkpoints/*"))
