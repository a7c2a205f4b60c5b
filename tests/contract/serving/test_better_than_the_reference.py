"""Where the embedded server is kinder than TensorFlow Serving, which would hang, give up or harm others.

Each test says what the real server does; it is not run against it.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import client_lab
import numpy as np
import pytest
import server_lab


@contextlib.contextmanager
def served(embedded: Any, *flags: str, **choices: Any) -> Iterator[tuple[Any, Any]]:
    with (
        server_lab.started(embedded, *flags, **choices) as server,
        server_lab.open_channel(server.target) as channel,
    ):
        yield server, client_lab.Client(rest_port=server.rest_port, channel=channel)


class Site:
    """A server with the resident model and base paths of the test's own."""

    def __init__(self, client: Any, zoo: Path, home: Path) -> None:
        self.client = client
        self.zoo = zoo
        self.home = home
        self.resident = server_lab.model_config("half_plus_two", zoo / "half_plus_two")

    def entry(self, name: str, **choices: Any) -> Any:
        return server_lab.model_config(name, self.home / name, **choices)

    def add(self, name: str, version: int) -> Path:
        target = self.home / name / str(version)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(self.zoo / f"plus/{version}", target.parent / f".tmp-{version}")
        return (target.parent / f".tmp-{version}").rename(target)

    def answer(self, name: str) -> float:
        value: float = client_lab.numbers(self.client.predict(name, {"x": [0.0]}), "y")[0]
        return value


@pytest.fixture
def site(embedded: Any, zoo: Path, tmp_path: Path) -> Iterator[Site]:
    flags = (
        "--model_config_file={directory}/models",
        "--file_system_poll_wait_seconds=1",
        "--max_num_load_retries=0",
    )
    resident = server_lab.model_config("half_plus_two", zoo / "half_plus_two")
    with served(embedded, *flags, files={"models": server_lab.config_text(resident)}) as (_, client):
        yield Site(client, zoo, tmp_path)


class TestFlags:
    @pytest.mark.parametrize(
        ("argument", "hint"), [("--model_bas_path=/x", "--model_base_path"), ("--no_such_flag", ""), ("positional", "")]
    )
    def test_an_unknown_flag_is_an_error(self, embedded: Any, zoo: Path, argument: str, hint: str) -> None:
        """The real server prints "unknown argument" and its usage, and goes on without it."""
        ended = server_lab.run_to_the_end(embedded, f"--model_base_path={zoo / 'plus'}", argument)
        assert ended.exit_code not in (0, None)
        assert argument in ended.stderr
        assert hint in ended.stderr

    def test_a_flag_that_cannot_be_honoured_says_so(self, embedded: Any, zoo: Path) -> None:
        """The real server honours it, or takes it in silence on a machine where it means nothing."""
        flags = (
            "--model_name=half_plus_two",
            f"--model_base_path={zoo / 'half_plus_two'}",
            "--per_process_gpu_memory_fraction=0.5",
        )
        with served(embedded, *flags) as (server, client):
            assert "--per_process_gpu_memory_fraction has no effect: " in server.log
            client.assert_serving()

    def test_it_listens_on_the_loopback_only(self, embedded: Any, zoo: Path) -> None:
        """The real server listens on every address, although whoever reaches it can load models."""
        flags = ("--model_name=half_plus_two", f"--model_base_path={zoo / 'half_plus_two'}")
        with served(embedded, *flags) as (server, client):
            pid = server.process.pid
            assert listening_addresses(pid, "tcp6") == set()
            assert listening_addresses(pid, "tcp") == {"0100007F"}
            client.assert_serving()

    def test_it_chooses_a_free_port_and_says_which(self, embedded: Any, zoo: Path) -> None:
        """The real server refuses --port=0 when no socket is named."""
        flags = ("--model_name=half_plus_two", f"--model_base_path={zoo / 'half_plus_two'}", "--port=0")
        with server_lab.launched(embedded, *flags, with_grpc="none", with_rest=False) as server:
            client_lab.Client.until(lambda: "READY grpc=" in server.log, lambda: server.log)
            server.target = server.log.partition("READY grpc=")[2].split()[0]
            server.wait_until_ready()
            with server_lab.open_channel(server.target) as channel:
                client_lab.Client(rest_port=0, channel=channel).assert_serving()
            assert int(server.target.rpartition(":")[2]) > 0

    def test_one_thread_for_rest_is_enough(self, embedded: Any, zoo: Path) -> None:
        """The real server answers nothing then: its event loop takes the thread."""
        flags = ("--model_name=half_plus_two", f"--model_base_path={zoo / 'half_plus_two'}")
        with served(embedded, *flags, "--rest_api_num_threads=1") as (_, client):
            client.assert_serving()


class TestMissingPaths:
    def test_a_reload_that_names_one_returns_and_says_so(self, site: Site) -> None:
        """The real server never returns, and takes no later configuration either."""
        site.add("good", 1)
        code, message = site.client.refused(
            lambda: site.client.reload(site.resident, site.entry("missing"), site.entry("good"))
        )
        assert code == "UNKNOWN"
        assert "Could not find base path" in message
        assert str(site.home / "missing") in message
        assert site.answer("good") == 1.0

    def test_the_next_correct_configuration_is_taken(self, site: Site) -> None:
        """The real server is still waiting for the path of the one before."""
        site.client.refused(lambda: site.client.reload(site.resident, site.entry("missing")))
        site.add("good", 1)
        site.client.reload(site.resident, site.entry("good"))
        assert site.answer("good") == 1.0

    def test_a_path_that_comes_later_is_served_then(self, site: Site) -> None:
        """The real server does this too, at a start; in a reload the caller hangs until then."""
        site.client.refused(lambda: site.client.reload(site.resident, site.entry("late")))
        site.add("late", 2)
        site.client.wait_for("late", {2: "AVAILABLE"})
        assert site.answer("late") == 2.0

    def test_one_missing_path_does_not_keep_the_others_from_new_versions(self, site: Site) -> None:
        """Of the real server no model sees new versions while one base path is gone."""
        site.add("gone", 1)
        site.add("grows", 1)
        site.client.reload(site.resident, site.entry("gone"), site.entry("grows"))
        shutil.rmtree(site.home / "gone")
        site.add("grows", 2)
        site.client.wait_for("grows", {2: "AVAILABLE", 1: "END"})
        assert (site.answer("gone"), site.answer("grows")) == (1.0, 2.0)

    def test_the_ports_open_although_one_is_missing_from_the_start(self, embedded: Any, zoo: Path) -> None:
        """The real server opens no port until every base path is there."""
        resident = server_lab.model_config("half_plus_two", zoo / "half_plus_two")
        config = server_lab.config_text(resident, server_lab.model_config("missing", "/no/such/path"))
        with served(embedded, "--model_config_file={directory}/models", files={"models": config}) as (_, client):
            client.assert_serving()


class TestBrokenVersions:
    def test_a_version_without_its_index_is_refused(self, site: Site) -> None:
        """The real loader accepts it, unloads the good version, and fails at every request."""
        site.add("own", 1)
        site.client.reload(site.resident, site.entry("own"))
        broken = site.add("beside", 2)
        (broken / "variables/variables.index").unlink()
        broken.rename(site.home / "own/2")
        site.client.wait_for("own", {2: "END", 1: "AVAILABLE"})
        assert "variables.index is missing" in site.client.status("own")[2].status.error_message
        assert site.answer("own") == 1.0

    def test_a_version_that_was_mended_is_tried_again(self, site: Site) -> None:
        """The real server never tries it again until its directory was gone or a higher version came."""
        site.add("own", 1)
        site.client.reload(site.resident, site.entry("own"))
        (site.home / "own/2").mkdir()
        site.client.wait_for("own", {2: "END", 1: "AVAILABLE"})
        shutil.copytree(site.zoo / "plus/2", site.home / "own/2", dirs_exist_ok=True)
        site.client.wait_for("own", {2: "AVAILABLE", 1: "END"})
        assert site.answer("own") == 2.0

    def test_a_broken_first_model_does_not_keep_the_others_from_being_served(
        self, embedded: Any, zoo: Path, tmp_path: Path
    ) -> None:
        """The real server ends after all its retries, five minutes of them by default."""
        (tmp_path / "bad/1").mkdir(parents=True)
        resident = server_lab.model_config("half_plus_two", zoo / "half_plus_two")
        config = server_lab.config_text(resident, server_lab.model_config("bad", tmp_path / "bad"))
        flags = ("--model_config_file={directory}/models", "--max_num_load_retries=0")
        with served(embedded, *flags, files={"models": config}) as (server, client):
            client.assert_serving()
            assert client.states("bad") == {1: "END"}
            assert "did not become available" in server.log

    def test_a_good_version_is_served_although_a_newer_one_is_broken_at_the_start(
        self, embedded: Any, zoo: Path, tmp_path: Path
    ) -> None:
        """The real server ends, even though the older version is good."""
        base = tmp_path / "base"
        shutil.copytree(zoo / "plus/1", base / "1")
        (base / "2").mkdir()
        config = server_lab.config_text(
            server_lab.model_config("half_plus_two", zoo / "half_plus_two"),
            server_lab.model_config("own", base, wants_all=True),
        )
        flags = ("--model_config_file={directory}/models", "--max_num_load_retries=0")
        with served(embedded, *flags, files={"models": config}) as (_, client):
            client.wait_for("own", {2: "END", 1: "AVAILABLE"})
            client.assert_serving()


class TestReload:
    def test_without_polling_a_reload_looks_at_the_file_system(self, embedded: Any, zoo: Path, tmp_path: Path) -> None:
        """With --file_system_poll_wait_seconds=0 a reload of the real server that adds a model never returns."""
        resident = server_lab.model_config("half_plus_two", zoo / "half_plus_two")
        flags = ("--model_config_file={directory}/models", "--file_system_poll_wait_seconds=0")
        with served(embedded, *flags, files={"models": server_lab.config_text(resident)}) as (_, client):
            site = Site(client, zoo, tmp_path)
            site.add("own", 1)
            client.reload(resident, site.entry("own"))
            assert site.answer("own") == 1.0
            site.add("own", 2)
            client.reload(resident, site.entry("own"))
            client.wait_for("own", {2: "AVAILABLE", 1: "END"})


class TestTransitions:
    def test_the_old_version_can_make_room_first(self, embedded: Any, zoo: Path, tmp_path: Path) -> None:
        """The real binary holds both versions for a while; its other policy cannot be chosen by a flag."""
        resident = server_lab.model_config("half_plus_two", zoo / "half_plus_two")
        flags = (
            "--model_config_file={directory}/models",
            "--file_system_poll_wait_seconds=1",
            "--transition_policy=resource_preserving",
        )
        with served(embedded, *flags, files={"models": server_lab.config_text(resident)}) as (_, client):
            site = Site(client, zoo, tmp_path)
            site.add("own", 1)
            client.reload(resident, site.entry("own"))
            site.add("own", 2)
            seen: list[dict[int, str]] = []

            def is_settled() -> bool:
                seen.append(client.states("own"))
                return seen[-1] == {2: "AVAILABLE", 1: "END"}

            client.until(is_settled, lambda: str(seen))
            assert not [states for states in seen if list(states.values()).count("AVAILABLE") > 1]
            assert site.answer("own") == 2.0


class TestBatching:
    def test_a_request_of_another_width_fails_nobody(self, embedded: Any, zoo: Path) -> None:
        """In the real server such requests meet in one batch, and all of its requests fail."""
        resident = server_lab.model_config("half_plus_two", zoo / "half_plus_two")
        files = {
            "models": server_lab.config_text(resident, server_lab.model_config("wide", zoo / "wide")),
            "batching": "max_batch_size { value: 2 } batch_timeout_micros { value: 2000000 }",
        }
        flags = (
            "--model_config_file={directory}/models",
            "--enable_batching",
            "--batching_parameters_file={directory}/batching",
        )
        with served(embedded, *flags, files=files) as (_, client), ThreadPoolExecutor(4) as pool:
            rows = [np.ones((1, width), np.float32) for width in (1, 2, 1, 2)]
            asking = [pool.submit(client.predict, "wide", {"x": row}) for row in rows]
            found = [client_lab.numbers(one.result(), "total") for one in asking]
            assert found == [[1.0], [2.0], [1.0], [2.0]]


class TestHealth:
    def test_it_is_always_on_and_needs_no_models_name(self, embedded: Any, zoo: Path) -> None:
        """The real server answers UNIMPLEMENTED unless --enable_grpc_healthcheck_service is given."""
        from grpc_health.v1 import health_pb2, health_pb2_grpc

        flags = ("--model_name=half_plus_two", f"--model_base_path={zoo / 'half_plus_two'}")
        with served(embedded, *flags) as (_, client):
            stub = health_pb2_grpc.HealthStub(client.channel)
            assert stub.Check(health_pb2.HealthCheckRequest(), timeout=60).status == 1


class TestStopping:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_running_requests_are_answered_before_it_ends(self, embedded: Any, zoo: Path, number: int) -> None:
        """The real server handles no signal: requests that run are dropped."""
        resident = server_lab.model_config("half_plus_two", zoo / "half_plus_two")
        config = server_lab.config_text(resident, server_lab.model_config("slow", zoo / "slow"))
        with served(embedded, "--model_config_file={directory}/models", files={"models": config}) as (server, client):
            client.predict("slow", {"x": [1.0]})
            request = client_lab.predict_request("slow", {"x": [5.0]})
            running = client.prediction.Predict.future(request, timeout=60)
            client.assert_serving()  # by then the one before it has arrived
            server.process.send_signal(number)
            assert client_lab.numbers(running.result(), "y") == [5.0]
            assert server.ended().exit_code == 0


def listening_addresses(pid: int, table: str) -> set[str]:
    """Return the addresses that a process listens on, as Linux writes them."""
    sockets = {path.readlink().name for path in Path(f"/proc/{pid}/fd").iterdir() if path.is_symlink()}
    found = set()
    for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
            found.add(fields[1].rpartition(":")[0])
    return found


def test_a_rest_port_that_cannot_be_opened_is_an_error(embedded: Any, zoo: Path) -> None:
    """The real server logs it and goes on without REST, which is noticed when somebody needs it."""
    resident = ("--model_name=half_plus_two", f"--model_base_path={zoo / 'half_plus_two'}")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = subprocess.run(
            [*embedded.arguments, *resident, "--port=0", f"--rest_api_port={port}"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 255
    assert f"Cannot listen on 127.0.0.1:{port}" in done.stdout
