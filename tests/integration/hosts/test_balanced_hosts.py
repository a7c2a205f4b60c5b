"""Two serving hosts behind the balancer that the role writes: reloaded, killed, stopped, and no request is lost."""

from __future__ import annotations

import collections
import csv
import importlib.util
import json
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

import jinja2
import numpy as np
import pytest
import soak
import yaml

from artifact_sync.durable import write_durably
from artifact_sync.errors import ModelServerError, ModelServerUnavailableError
from serving.model_server import GrpcModelServer, ModelConfig, ServerTls, VersionState, model_config_text

HAPROXY = shutil.which("haproxy", path="/usr/sbin:/usr/bin")
EMBEDDED = (sys.executable, "-m", "serving.embedded_server")
CLASSES, CLIENTS, REQUESTS = 5, 6, 300
# As many bytes as a photo of 224 pixels has: more than HAProxy holds of a request, so only the client can ask again.
PIXELS = np.zeros((2352, 8, 8, 1), np.uint8)

# In a soak each host ends in both ways.
ENDS = ((signal.SIGKILL, 0), (signal.SIGTERM, 1), (signal.SIGKILL, 1), (signal.SIGTERM, 0))[: soak.rounds(2, soak=4)]

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
    """A serving host: an embedded server at an address of its own behind mutual TLS, started by the launcher."""

    name: str
    ip: str
    port: int
    folder: Path
    base_path: Path
    server_tls: dict[str, str]
    agent_tls: ServerTls
    version: int = 1
    process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"{self.ip}:{self.port}"

    def start(self) -> None:
        flags = {
            "config_path": str(self.folder / "models.config"),
            "files_dir": str(self.folder / "run"),
            "socket_path": str(self.folder / "grpc.sock"),
            "port": self.port,
            "tls": self.server_tls,
        }
        flags_path = self.folder / "model-server.json"
        flags_path.write_text(json.dumps(flags))
        command = [sys.executable, "-m", "serving.server_launch", str(flags_path), "--", *EMBEDDED, f"--host={self.ip}"]
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)

    def end(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait()

    def client(self) -> GrpcModelServer:
        """The agent's way to the server: the socket."""
        return GrpcModelServer(f"unix:{self.folder}/grpc.sock", tls=self.agent_tls)

    def write(self, models: tuple[ModelConfig, ...]) -> None:
        write_durably(self.folder / "models.config", model_config_text(models).encode())

    def configure(self, versions: tuple[int, ...], stable: int) -> None:
        models = (ModelConfig("digits", str(self.base_path), versions, {"stable": stable}),)
        self.write(models)
        with self.client() as server:
            server.reload(models, timeout_seconds=30)

    def move(self, version: int) -> None:
        """Move to another version as the agent does: load it, wait for it, move the label, let the old one go."""
        self.configure((self.version, version), self.version)
        with self.client() as server:
            until(lambda: (version, VersionState.AVAILABLE) in states(server))
        self.configure((self.version, version), version)
        self.configure((version,), version)
        self.version = version


def states(server: GrpcModelServer) -> set[tuple[int, VersionState]]:
    return {(each.version, each.state) for each in server.status("digits")}


@pytest.fixture
def authority(repository: Path, tmp_path: Path) -> Any:
    (tmp_path / "tls").mkdir()
    return load_module(repository / "tests" / "tls_authority.py").TestAuthority(tmp_path / "tls")


@pytest.fixture
def hosts(base_path: Path, authority: Any, tmp_path: Path) -> Iterator[tuple[Host, Host]]:
    """Two hosts that serve version 1, each with a certificate of its own name."""

    def host(name: str, ip: str) -> Host:
        (tmp_path / name).mkdir()
        certificate_path, key_path = authority.issue(name, hosts=(name,))
        server_tls = {
            "ca_path": str(authority.ca_path),
            "certificate_path": str(certificate_path),
            "key_path": str(key_path),
        }
        agent_tls = ServerTls(authority.ca_path, *authority.issue(f"agent-of-{name}"), server_name=name)
        made = Host(name, ip, free_port(ip), tmp_path / name, base_path, server_tls, agent_tls)
        made.write((ModelConfig("digits", str(base_path), (1,), {"stable": 1}),))
        return made

    made = host("serve1", "127.0.0.2"), host("serve2", "127.0.0.3")
    try:
        for each in made:
            each.start()
        yield made
    finally:
        for each in made:
            each.end(signal.SIGKILL)


def free_port(ip: str) -> int:
    with socket.socket() as probe:
        probe.bind((ip, 0))
        return int(probe.getsockname()[1])


class Balancer:
    """HAProxy with the role's configuration, but for its folder and its group."""

    def __init__(self, repository: Path, folder: Path, variables: dict[str, Any]) -> None:
        self.target = f"unix:{folder}/grpc.sock"
        self._admin = folder / "admin.sock"
        role = repository / "ansible" / "roles" / "model_balancer"
        environment = jinja2.Environment(trim_blocks=True, undefined=jinja2.StrictUndefined, autoescape=False)
        environment.filters.update(
            load_module(role / "filter_plugins/model_status_question.py").FilterModule().filters()
        )
        defaults = yaml.safe_load((role / "defaults" / "main.yml").read_text())
        variables = {**defaults, "model_balancer_model": "digits", "model_balancer_group": "root", **variables}
        template = environment.from_string((role / "templates/haproxy.cfg.j2").read_text())
        text = template.render(variables).replace("/run/liftgate-balancer", str(folder))
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
        rows = csv.DictReader(self.ask("show stat").removeprefix("# ").splitlines())
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
    repository: Path, hosts: tuple[Host, Host], authority: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Balancer]:
    authority.issue("balancer")
    folder = tmp_path_factory.mktemp("haproxy")
    variables = {
        "model_balancer_servers": [{"name": host.name, "address": host.address} for host in hosts],
        "model_balancer_ca": str(authority.ca_path),
        "model_balancer_certificate": str(authority.folder / "balancer.both"),
    }
    with Balancer(repository, folder, variables) as balancer:
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
        for number, host in ENDS:
            hosts[host].end(number)
            load.go_on()
            balancer.wait_for(hosts[host].name, "DOWN")
            hosts[host].start()
            balancer.wait_for(hosts[host].name, "UP")
            load.go_on()
        for host in hosts[: soak.rounds(1, soak=2)]:
            # A host that hangs takes connections and answers nothing.
            host.process.send_signal(signal.SIGSTOP)
            balancer.wait_for(host.name, "DOWN")
            load.go_on()
            host.process.send_signal(signal.SIGCONT)
            balancer.wait_for(host.name, "UP")
            load.go_on()
    lost = {name: f"{row['wredis']} given to another, {row['eresp']} lost" for name, row in balancer.table().items()}
    print(
        f"\n{load.count} requests by {CLIENTS} clients, {len(load.failures)} failed; by version {dict(load.versions)}; "
        f"by host after the reloads {spread}, in the end {balancer.answered()}; in the balancer {lost}; "
        f"longest {load.longest_seconds:.1f} s"
    )
    assert load.failures == []
    assert min(spread.values()) > 0.3 * sum(spread.values())


def test_only_a_host_that_has_the_model_takes_part(hosts: tuple[Host, Host], balancer: Balancer) -> None:
    empty, full = hosts
    with empty.client() as server:
        server.reload((), timeout_seconds=30)
    balancer.wait_for(empty.name, "DOWN")
    before = balancer.answered()
    with GrpcModelServer(balancer.target) as server:
        for _ in range(20):
            assert server.predict("digits", PIXELS, label="stable").version == 1
    after = balancer.answered()
    assert {name: after[name] - before[name] for name in after} == {empty.name: 0, full.name: 20}
    empty.configure((3,), 3)
    balancer.wait_for(empty.name, "UP")


def test_questions_pass_and_orders_do_not(hosts: tuple[Host, Host], balancer: Balancer) -> None:
    with GrpcModelServer(balancer.target) as server:
        assert server.signature("digits").version == 1
        assert states(server) == {(1, VersionState.AVAILABLE)}
        with pytest.raises(ModelServerError, match="PERMISSION_DENIED: The balancer passes on questions only"):
            server.reload((), timeout_seconds=10)
    for host in hosts:
        with host.client() as server:
            assert states(server) == {(1, VersionState.AVAILABLE)}


def test_an_operator_drains_a_host_and_without_any_host_the_answer_says_so(
    hosts: tuple[Host, Host], balancer: Balancer
) -> None:
    with Load(balancer.target) as load:
        load.go_on()
        balancer.ask(f"set server models/{hosts[0].name} state drain")
        until(lambda: balancer.table()[hosts[0].name]["scur"] == "0")
        before = balancer.answered()
        load.go_on()
        after = balancer.answered()
    assert load.failures == []
    assert after[hosts[0].name] == before[hosts[0].name]
    balancer.ask(f"set server models/{hosts[1].name} state maint")
    with (
        GrpcModelServer(balancer.target) as server,
        pytest.raises(ModelServerUnavailableError, match="No model server is up"),
    ):
        server.predict("digits", PIXELS[:1])


def test_a_server_that_cannot_prove_its_name_takes_no_part(
    repository: Path, hosts: tuple[Host, Host], authority: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    authority.issue("balancer")
    variables = {
        "model_balancer_servers": [
            {"name": "serve1", "address": hosts[0].address},
            {"name": "elsewhere", "address": hosts[1].address},
        ],
        "model_balancer_ca": str(authority.ca_path),
        "model_balancer_certificate": str(authority.folder / "balancer.both"),
    }
    with Balancer(repository, tmp_path_factory.mktemp("haproxy"), variables) as balancer:
        balancer.wait_for("serve1", "UP")
        balancer.wait_for("elsewhere", "DOWN")
        assert "SSL" in balancer.table()["elsewhere"]["last_chk"] + balancer.log
