"""Run the trainer as one task of a Slurm job: what Slurm says of the job becomes what TensorFlow wants to know.

Its place in the flow: deploy/slurm/train.sbatch starts one task on each node with
`python -m training_cluster.hosts.slurm -- COMMAND …`; this sets TF_CONFIG and becomes the command, which
then gets Slurm's signals itself.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence

from artifact_sync.errors import LiftgateError, SettingsError

_DEFAULT_PORT = 12345
_PORT_VARIABLE = "LIFTGATE_WORKER_PORT"
_GROUP = re.compile(r"([^,\[\]]*)(?:\[([^\]]*)\])?([^,\[\]]*)(?:,|$)")


def expand_nodes(text: str) -> tuple[str, ...]:
    """Return the nodes of a list as Slurm writes it, such as "gpu[01-03,7],big1".

    Raises:
        SettingsError: it is not such a list.
    """
    nodes: list[str] = []
    place = 0
    while place < len(text):
        found = _GROUP.match(text, place)
        if found is None or found.end() == place:
            raise SettingsError(f"SLURM_JOB_NODELIST is {text!r}, which is no list of nodes. Run this inside a job.")
        prefix, ranges, suffix = found.groups()
        nodes += [f"{prefix}{number}{suffix}" for number in _expand_ranges(ranges)] if ranges else [prefix + suffix]
        place = found.end()
    return tuple(nodes)


def worker_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that make this task a worker: TF_CONFIG, or none when the job has one node.

    Raises:
        SettingsError: this is no task of a Slurm job, or several tasks share a node.
    """
    try:
        nodes = expand_nodes(environment["SLURM_JOB_NODELIST"])
        index, tasks = int(environment["SLURM_PROCID"]), int(environment["SLURM_NTASKS"])
        port = int(environment.get(_PORT_VARIABLE, _DEFAULT_PORT))
    except KeyError as missing:
        raise SettingsError(
            f"{missing.args[0]} is not set: this is no task of a Slurm job. Submit deploy/slurm/train.sbatch."
        ) from None
    except ValueError as error:
        raise SettingsError(f"Slurm's variables, or {_PORT_VARIABLE}, are no numbers: {error}.") from None
    if tasks != len(nodes):
        raise SettingsError(
            f"The job has {tasks} tasks on {len(nodes)} nodes. One process uses all GPUs of its node: "
            "ask for one task a node (--ntasks-per-node=1)."
        )
    if len(nodes) == 1:
        return {}
    cluster = {"worker": [f"{node}:{port}" for node in nodes]}
    return {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}})}


def main(arguments: Sequence[str] | None = None) -> int:
    """Become the command after `--`, as the worker that this task is."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    command = given[1:] if given[:1] == ["--"] else given
    if not command:
        sys.stderr.write("Usage: python -m training_cluster.hosts.slurm -- COMMAND …\n")
        return SettingsError.exit_code
    try:
        worker = worker_environment(os.environ)
    except LiftgateError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    try:
        # It takes this process's place, so that Slurm's signals reach it.
        os.execvpe(command[0], command, {**os.environ, **worker})  # noqa: S606
    except OSError as error:
        sys.stderr.write(f"{command[0]} cannot be started: {error.strerror}. Name the trainer's Python in full.\n")
        return SettingsError.exit_code


def _expand_ranges(ranges: str) -> list[str]:
    numbers = []
    for part in ranges.split(","):
        first, _, last = part.partition("-")
        if not first.isdigit() or not (last or first).isdigit():
            raise SettingsError(f"SLURM_JOB_NODELIST has the range {part!r}, which is none. Run this inside a job.")
        # Leading zeros belong to the name.
        numbers += [f"{number:0{len(first)}}" for number in range(int(first), int(last or first) + 1)]
    return numbers


if __name__ == "__main__":
    sys.exit(main())
