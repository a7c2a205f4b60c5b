"""Two serving hosts behind the balancer that the role writes: reloaded, killed, stopped, and no request is lost."""

from __future__ import annotations

import collections
import csv
import importlib.util
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc
import jinja2
import numpy as np
import pytest

from artifact_sync.durable import write_durably
from artifact_sync.errors import ModelServerError
from serving.model_server import GrpcModelServer, ModelConfig, VersionState, model_config_text
from serving.server_process import ServerProcess

HAPROXY = shutil.which("haproxy", path="/usr/sbin:/usr/bin")
EMBEDDED = (sys.executable, "-m", "serving.embedded_server")
CLASSES, CLIENTS, REQUESTS = 5, 6, 300
PIXELS = np.zeros((4, 8, 8, 1), np.uint8)

pytestmark = pytest.mark.skipif(HAPROXY is None, reason="the balancer is HAProxy (Debian: haproxy)")


def load_module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"balanced_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def until(condition: Callable[[], object], *, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def base_path(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Versions 1 to 3; the class that version N likes best is N."""
    tiny = load_module(repository / "tests" / "tiny_models.py")
    base = tmp_path_factory.mktemp("digits")
    for version in (1, 2, 3):
        tiny.tiny_model(base / str(version), classes=CLASSES, favourite_class=version)
    return base


@dataclass
class Host:
    """A serving host: an embedded server at an address of its own, and the start-up file that an agent keeps."""

    name: str
    address: str
    base_path: Path
    config_path: Path
    process: ServerProcess
    version: int = 1

    def configure(self, versions: tuple[int, ...], stable: int) -> None:
        models = (ModelConfig("digits", str(self.base_path), versions, {"stable": stable}),)
        write_durably(self.config_path, model_config_text(models).encode())
        with GrpcModelServer(self.process.target) as server:
            server.reload(models, timeout_seconds=30)

    def move(self, version: int) -> None:
        """Move to another version as the agent does: load it, wait for it, move the label, let the old one go."""
        self.configure((self.version, version), self.version)
        with GrpcModelServer(self.process.target) as server:
            until(lambda: (version, VersionState.AVAILABLE) in states(server))
        self.configure((self.version, version), version)
        self.configure((version,), version)
        self.version = version


def states(server: GrpcModelServer) -> set[tuple[int, VersionState]]:
    return {(each.version, each.state) for each in server.status("digits")}


@pytest.fixture
def hosts(base_path: Path, tmp_path: Path) -> Iterator[tuple[Host, Host]]:
    def host(name: str, ip: str) -> Host:
        port = free_port(ip)
        config_path = tmp_path / name / "models.config"
        models = (ModelConfig("digits", str(base_path), (1,), {"stable": 1}),)
        write_durably(config_path, model_config_text(models).encode())
        process = ServerProcess(config_path, command=EMBEDDED, flags=(f"--port={port}", f"--host={ip}"))
        return Host(name, f"{ip}:{port}", base_path, config_path, process)

    first, second = host("serve1", "127.0.0.2"), host("serve2", "127.0.0.3")
    with first.process, second.process:
        yield first, second


def free_port(ip: str) -> int:
    with socket.socket() as probe:
        probe.bind((ip, 0))
        return int(probe.getsockname()[1])


class Balancer:
    """HAProxy with the role's configuration, but for its folder and its group."""

    def __init__(self, repository: Path, folder: Path, servers: list[dict[str, str]], **variables: Any) -> None:
        self.target = f"unix:{folder}/grpc.sock"
        self._admin = folder / "admin.sock"
        role = repository / "ansible" / "roles" / "model_balancer"
        environment = jinja2.Environment(trim_blocks=True, undefined=jinja2.StrictUndefined, autoescape=False)
        environment.filters.update(
            load_module(role / "filter_plugins/model_status_question.py").FilterModule().filters()
        )
        defaults = {
            "model_balancer_model": "digits",
            "model_balancer_group": "root",
            "model_balancer_ca": "",
            "model_balancer_certificate": "",
            "model_balancer_server_requests": 256,
            "model_balancer_request_seconds": 60,
            "model_balancer_queue_seconds": 5,
            "model_balancer_check_seconds": 1,
            "model_balancer_check_timeout_seconds": 1,
            "model_balancer_metrics_port": 0,
            "model_balancer_servers": servers,
        }
        template = environment.from_string((role / "templates/haproxy.cfg.j2").read_text())
        text = template.render({**defaults, **variables}).replace("/run/liftgate-balancer", str(folder))
        self.config_path = folder / "haproxy.cfg"
        self.config_path.write_text(text + "\n")
        self._log_path = folder / "haproxy.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Balancer:
        with self._log_path.open("wb") as log:
            command = [str(HAPROXY), "-db", "-f", str(self.config_path)]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        until(self._admin.exists)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    @property
    def log(self) -> str:
        return self._log_path.read_text()

    def table(self) -> dict[str, dict[str, str]]:
        """What HAProxy says about each server."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self._admin))
            connection.sendall(b"show stat\n")
            text = b"".join(iter(lambda: connection.recv(65_536), b"")).decode()
        rows = csv.DictReader(text.removeprefix("# ").splitlines())
        return {row["svname"]: row for row in rows if row["pxname"] == "models"}

    def ask(self, command: str) -> str:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self._admin))
            connection.sendall(f"{command}\n".encode())
            return b"".join(iter(lambda: connection.recv(65_536), b"")).decode()

    def wait_for(self, name: str, status: str) -> None:
        until(lambda: self.table()[name]["status"] == status)

    def answered(self) -> dict[str, int]:
        return {name: int(row["hrsp_2xx"]) for name, row in self.table().items() if name.startswith("serve")}


@dataclass
class Load:
    """Clients that ask without pause through the balancer, and note every answer."""

    target: str
    stopping: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    versions: collections.Counter[int] = field(default_factory=collections.Counter)
    failures: list[str] = field(default_factory=list)
    longest_seconds: float = 0.0

    def __enter__(self) -> Load:
        self.threads = [threading.Thread(target=self._run) for _ in range(CLIENTS)]
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        for thread in self.threads:
            thread.join()

    def _run(self) -> None:
        with GrpcModelServer(self.target) as server:
            while not self.stopping.is_set():
                began = time.monotonic()
                try:
                    answer = server.predict("digits", PIXELS, label="stable", timeout_seconds=30)
                except ModelServerError as error:
                    with self.lock:
                        self.failures.append(str(error))
                    continue
                with self.lock:
                    self.longest_seconds = max(self.longest_seconds, time.monotonic() - began)
                    self.versions[answer.version] += 1
                    if set(answer.scores.argmax(axis=1)) != {answer.version}:
                        self.failures.append(f"version {answer.version} gave the scores of another")

    @property
    def count(self) -> int:
        return sum(self.versions.values())

    def go_on(self, requests: int = REQUESTS) -> None:
        """Return when so many more requests were answered."""
        goal = self.count + requests
        until(lambda: self.count >= goal or self.failures)


@pytest.fixture
def balancer(
    repository: Path, hosts: tuple[Host, Host], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Balancer]:
    servers = [{"name": host.name, "address": host.address} for host in hosts]
    with Balancer(repository, tmp_path_factory.mktemp("haproxy"), servers) as balancer:
        for host in hosts:
            balancer.wait_for(host.name, "UP")
        yield balancer


def test_no_request_is_lost_while_hosts_are_reloaded_killed_and_stopped_one_after_another(
    hosts: tuple[Host, Host], balancer: Balancer
) -> None:
    with Load(balancer.target) as load:
        load.go_on()
        for host in hosts:
            host.move(2)
            load.go_on()
        assert set(load.versions) == {1, 2}
        spread = balancer.answered()
        for host in hosts:
            host.process.kill()
            load.go_on()
            balancer.wait_for(host.name, "DOWN")
            host.process.start()
            balancer.wait_for(host.name, "UP")
            load.go_on()
        for host in hosts:
            host.process.terminate()
            load.go_on()
            host.process.start()
            balancer.wait_for(host.name, "UP")
            load.go_on()
        for host in hosts:
            balancer.wait_for(host.name, "UP")
            # A host that hangs: it takes connections and answers nothing.
            host.process._process.send_signal(signal.SIGSTOP)
            balancer.wait_for(host.name, "DOWN")
            load.go_on()
            host.process._process.send_signal(signal.SIGCONT)
            balancer.wait_for(host.name, "UP")
            load.go_on()
    table = balancer.table()
    print(
        f"\n{load.count} requests, {len(load.failures)} failed, by version {dict(load.versions)}, by host after the "
        f"reloads {spread} and in the end {balancer.answered()}; longest {load.longest_seconds:.1f} s; balancer: "
        + ", ".join(
            f"{n} wretr {r['wretr']} wredis {r['wredis']} eresp {r['eresp']} econ {r['econ']}" for n, r in table.items()
        )
    )
    assert load.failures == []
    assert min(spread.values()) > 0.3 * sum(spread.values())
