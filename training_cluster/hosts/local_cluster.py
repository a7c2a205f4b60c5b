"""Training on this very machine, in processes that live on when this one ends.

Its place in the flow: the `Cluster` for a laptop or a single GPU machine without Ansible. What is known of a run
lies in files, so a later process finds it, follows it and stops it. Several workers train as several hosts would,
each with a disk of its own: that is how a training over hosts is tried before there are any.
"""

from __future__ import annotations

import getpass
import json
import os
import socket
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path, PurePosixPath

from artifact_sync.canonical import canonical_json
from artifact_sync.durable import write_durably
from artifact_sync.run_folder import RunFolder
from training_cluster.cluster import TrainingRequest, TrainingState, Wish, spread_over
from training_cluster.config.training_config import TrainingConfig, load_config
from training_cluster.datasets.data_manifest import load_data_manifest
from training_cluster.hosts.attached_run import AttachedRun
from training_cluster.hosts.attachment import AttachedHost, Attachment, attachment_path
from training_cluster.hosts.host_side import Question
from training_cluster.hosts.launch_folder import LaunchFolder
from training_cluster.hosts.supervision import Restarts

_STOP_GRACE_SECONDS = 60.0


class LocalCluster:
    """One machine: this one.

    Args:
        python: the interpreter that trains, by default this one.
        stop_grace_seconds: how long a stopped training may take for its checkpoint before it is killed.
        workers: processes among which a run with the spread "hosts" is divided, and the cores with it; not given,
            as many as the run had before, or one.
        restarts: so often in a row without a new checkpoint a trainer that died is started again.
        cache_dir: where what is streamed from s3:// is kept; without it nothing is.
        cache_gigabytes: the bound on that folder's size, in 10**9 bytes.
    """

    def __init__(
        self,
        *,
        python: str = sys.executable,
        stop_grace_seconds: float = _STOP_GRACE_SECONDS,
        workers: int | None = None,
        restarts: int = Restarts.limit,
        cache_dir: Path | None = None,
        cache_gigabytes: float = 100.0,
    ) -> None:
        self._python = python
        self._stop_grace_seconds = stop_grace_seconds
        self._workers = workers
        self._restarts = restarts
        self._cache: tuple[str, ...] = ()
        if cache_dir is not None:
            self._cache = ("--cache-dir", str(cache_dir.resolve()), "--cache-gigabytes", str(cache_gigabytes))

    def start(self, request: TrainingRequest) -> None:
        """Begin the run, go on with it, or leave it alone when it is running or complete.

        Raises:
            SettingsError: the configuration is wrong.
            NotFoundError: there is no dataset.
            TrainingError: a process did not come up.
        """
        if request.run_folder.is_complete:
            return
        # What can be refused at once is not left to a log file.
        config = load_config(request.config_path)
        if not request.streams:
            load_data_manifest(Path(request.data))
        before, attachment = self._run(request), self._fresh_attachment(request)
        standing = before.host_states()
        if all(host.is_running for host in standing):
            return
        if len(standing) != len(attachment.hosts):
            # Those that are in it no more would wait for the others.
            before.stop(grace_seconds=self._stop_grace_seconds)
        path = attachment_path(request.runs_dir.resolve(), request.run_id)
        write_durably(path, canonical_json(attachment.model_dump(mode="json")))
        addresses = _addresses(attachment)
        for host in attachment.hosts:
            self._start_worker(request, host, config=config, addresses=addresses)

    def state(self, request: TrainingRequest) -> TrainingState:
        """Return what is known of the run from its files."""
        return self._run(request).state()

    def collect(self, request: TrainingRequest) -> RunFolder:
        """Return the run folder, which is here already, verified.

        Raises:
            TrainingError: the run is not complete.
            IntegrityError: the export is not what its manifest says.
        """
        return self._run(request).collect(request.runs_dir.resolve())

    def stop(self, request: TrainingRequest) -> None:
        """Ask the run to checkpoint and end; kill it when it does not."""
        self._run(request).stop(grace_seconds=self._stop_grace_seconds)

    def kill(self, request: TrainingRequest) -> None:
        """End the run at once."""
        self._run(request).kill()

    def wish(self, request: TrainingRequest, wish: Wish, *, steps: int = 0) -> None:
        """Have the running training fulfil a wish at its next look.

        Raises:
            RefusedError: the run does not run.
        """
        self._run(request).wish(wish, steps=steps)

    def _run(self, request: TrainingRequest) -> AttachedRun:
        path = attachment_path(request.runs_dir.resolve(), request.run_id)
        return AttachedRun(Attachment.load(path) or self._fresh_attachment(request))

    def _fresh_attachment(self, request: TrainingRequest) -> Attachment:
        hosts = tuple(self._host(request, index) for index in range(self._count(request)))
        return Attachment.of(request.run_id, hosts, spread=request.spread)

    def _count(self, request: TrainingRequest) -> int:
        if request.spread != "hosts":
            return 1
        before = Attachment.load(attachment_path(request.runs_dir.resolve(), request.run_id))
        return self._workers or (1 if before is None else len(before.hosts))

    def _host(self, request: TrainingRequest, index: int) -> AttachedHost:
        runs_dir = request.runs_dir.resolve()
        launch_dir = runs_dir / ".launch" / request.run_id
        # The others write into runs of their own, as on disks of their own: only the chief's becomes complete.
        run_dir = runs_dir / request.run_id if index == 0 else launch_dir / f"worker-{index}" / request.run_id
        return AttachedHost(
            name=socket.gethostname() if index == 0 else f"{socket.gethostname()}-{index}",
            connection="local",
            address="127.0.0.1",
            user=getpass.getuser(),
            python=self._python,
            app_dir=PurePosixPath(Path(__file__).parents[2]),
            launch_dir=PurePosixPath(launch_dir if index == 0 else launch_dir / f"worker-{index}"),
            run_dir=PurePosixPath(run_dir),
            index=index,
        )

    def _start_worker(
        self, request: TrainingRequest, host: AttachedHost, *, config: TrainingConfig, addresses: Sequence[str]
    ) -> None:
        launch = LaunchFolder(Path(host.launch_dir))
        if not launch.is_running:
            # Its own copy: editing the file while it trains changes nothing, also when it is started again.
            write_durably(_config_path(launch), canonical_json(config.resolved()))
            launch.give_environment(_own_environment(request, workers=len(addresses)))
        question = Question(
            "start",
            index=host.index,
            grace_seconds=self._stop_grace_seconds,
            tf_config=_tf_config(addresses, index=host.index),
            restarts=self._restarts,
        )
        question.answer(launch, RunFolder(Path(host.run_dir)), command=self._command(request, host))

    def _command(self, request: TrainingRequest, host: AttachedHost) -> Sequence[str]:
        data = request.data if request.streams else str(Path(request.data).resolve())
        return (
            *(self._python, "-m", "training_cluster.trainer"),
            *("--run-dir", str(host.run_dir), "--run-id", request.run_id),
            *("--model", request.model, "--trained-by", request.trained_by),
            *("--spread", spread_over(request.spread, hosts=self._count(request))),
            *("--config", str(_config_path(LaunchFolder(Path(host.launch_dir)))), "--data", data),
            *(self._cache if request.streams else ()),
        )


def _config_path(launch: LaunchFolder) -> Path:
    return launch.path / "config.json"


def _own_environment(request: TrainingRequest, *, workers: int) -> dict[str, str]:
    """Return what the trainer needs of this process' environment and a unit of the service manager does not get."""
    keys = {key: value for key, value in os.environ.items() if key.startswith("AWS_")} if request.streams else {}
    if workers == 1:
        return keys
    threads = str(max(1, (os.cpu_count() or 1) // workers))
    return {**keys, "TF_NUM_INTRAOP_THREADS": threads, "TF_NUM_INTEROP_THREADS": threads}


def _addresses(attachment: Attachment) -> list[str]:
    """Return where each worker listens; those of workers that run already stay."""
    for host in attachment.hosts:
        launch = LaunchFolder(Path(host.launch_dir))
        if launch.is_running and launch.tf_config:
            taken: list[str] = json.loads(launch.tf_config)["cluster"]["worker"]
            if len(taken) == len(attachment.hosts):
                return taken
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in attachment.hosts]
        return [f"127.0.0.1:{listening.getsockname()[1]}" for listening in sockets]


def _tf_config(addresses: Sequence[str], *, index: int) -> str:
    if len(addresses) == 1:
        return ""
    return json.dumps({"cluster": {"worker": list(addresses)}, "task": {"type": "worker", "index": index}})
