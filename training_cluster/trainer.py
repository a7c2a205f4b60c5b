"""The program that trains one run on a host: `python -m training_cluster.trainer`.

Its place in the flow: clusters start it; it reads shards and configuration and fills the run folder.
Starting it again goes on from the newest checkpoint, and leaves a complete run as it is. Exit codes:
0 complete, 75 interrupted at a checkpoint, 76 another worker is lost, else the code of the error.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from pydantic import TypeAdapter, ValidationError

from artifact_sync.clock import Clock, SystemClock
from artifact_sync.errors import InputError, LiftgateError, RefusedError, SettingsError
from artifact_sync.records import RunId
from artifact_sync.run_folder import RunFolder
from training_cluster.cluster import INTERRUPTED_EXIT_CODE, PEER_LOST_EXIT_CODE, Spread
from training_cluster.config.training_config import load_config
from training_cluster.inputs.source import open_source
from training_cluster.networks.sizes import refuse_other_sizes
from training_cluster.training.interruption import Interruption
from training_cluster.training.meters import Costs


@dataclass(frozen=True)
class TrainingTask:
    """What one execution of the trainer is asked to do.

    Attributes:
        run_dir: the run folder; it is made when missing.
        run_id: its name.
        model: the model's name.
        config_path: the training's TOML file.
        data: where data_manifest.json and its shards lie: a folder, or s3://bucket/prefix to stream from.
        trained_by: who asked for it.
        spread: over what: one device, all devices of this host, or all hosts that TF_CONFIG names.
        cache_dir: where what was streamed is kept on this host's disk; without one nothing is.
        cache_gigabytes: the bound on its size.
    """

    run_dir: Path
    run_id: str
    model: str
    config_path: Path
    data: str
    trained_by: str
    spread: Spread = "host"
    cache_dir: Path | None = None
    cache_gigabytes: float = 100.0


def train(task: TrainingTask, *, clock: Clock, interruption: Interruption) -> bool:
    """Bring the run to its end and return True, or to a checkpoint when interrupted and return False.

    Raises:
        SettingsError: the configuration or the run's id is wrong.
        NotFoundError: there is no dataset.
        RefusedError: the run belongs to another configuration or other data, or another process trains it.
        IntegrityError: shards are not what their manifest says.
        TrainingError: no candidate came out of it, or another worker is lost.
    """
    costs, folder = Costs(clock), RunFolder(task.run_dir)
    _refuse_malformed(task.run_id)
    if folder.is_complete:
        return True
    if folder.run_id != task.run_id:
        raise InputError(f"Training refused: run {task.run_id} cannot lie in {task.run_dir}; the folder bears its id.")
    config = load_config(task.config_path)
    source = open_source(task.data, cache_dir=task.cache_dir, cache_gigabytes=task.cache_gigabytes)
    refuse_other_sizes(config.model, source.manifest.contract)
    # TensorFlow takes seconds to import; complete runs and wrong settings are answered without it.
    from training_cluster.training.execution import Execution  # noqa: PLC0415

    execution = Execution(task, config=config, source=source, clock=clock, interruption=interruption, costs=costs)
    with _only_trainer(task.run_dir, index=execution.workers.index):
        return execution.run()


def main(arguments: Sequence[str] | None = None) -> int:
    """Execute the command line; talk goes to stderr, progress to stdout."""
    task = _parse(arguments)
    # TensorFlow's start-up lines would bury our own; who wants them sets the variable.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        is_complete = train(task, clock=SystemClock(), interruption=Interruption())
    except LiftgateError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0 if is_complete else INTERRUPTED_EXIT_CODE


def _refuse_malformed(run_id: str) -> None:
    try:
        TypeAdapter(RunId).validate_python(run_id)
    except ValidationError:
        raise SettingsError(
            f"Training refused: {run_id!r} cannot name a run. Use 3 to 63 of a-z, 0-9, '.', '_' and '-', "
            "a letter or a digit first."
        ) from None


@contextmanager
def _only_trainer(run_dir: Path, *, index: int) -> Iterator[None]:
    """Hold the run's lock, which the kernel lets go whatever ends this process."""
    run_dir.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(run_dir / f".trainer-{index}.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise RefusedError(f"Training refused: another process trains run {run_dir.name} in {run_dir}.") from None
    finally:
        os.close(descriptor)


def _parse(arguments: Sequence[str] | None) -> TrainingTask:
    parser = argparse.ArgumentParser(prog="python -m training_cluster.trainer", description=__doc__)
    parser.add_argument("--run-dir", type=Path, required=True, help="the run folder, runs/<run id>")
    parser.add_argument("--run-id", required=True)
    parser.add_argument("--model", required=True, help="the model's name")
    parser.add_argument("--config", type=Path, required=True, help="the training's TOML file")
    parser.add_argument("--data", required=True, help="the folder with data_manifest.json, or s3://bucket/prefix")
    parser.add_argument("--trained-by", required=True, help="who asked for it")
    parser.add_argument(
        "--spread",
        choices=get_args(Spread),
        default="hosts" if "TF_CONFIG" in os.environ else "host",
        help="one device, all devices of this host, or all hosts of TF_CONFIG; the default is the last when it is set",
    )
    parser.add_argument("--cache-dir", type=Path, help="keep what is streamed from s3:// here; default: nowhere")
    parser.add_argument("--cache-gigabytes", type=float, default=100.0, help="the bound on that folder's size")
    options = parser.parse_args(arguments)
    return TrainingTask(
        run_dir=options.run_dir.resolve(),
        run_id=options.run_id,
        model=options.model,
        config_path=options.config,
        data=options.data,
        trained_by=options.trained_by,
        spread=options.spread,
        cache_dir=options.cache_dir,
        cache_gigabytes=options.cache_gigabytes,
    )


if __name__ == "__main__":
    code = main()
    if code == PEER_LOST_EXIT_CODE:
        # TensorFlow would wait for the lost worker once more.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
