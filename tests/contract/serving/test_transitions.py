"""From one version to the next: new before old, nothing lost, and a broken one harms nobody."""

from __future__ import annotations

import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import client_lab
import pytest
import server_lab

STATES = {"START": 10, "LOADING": 20, "AVAILABLE": 30, "UNLOADING": 40, "END": 50}


def test_states_have_their_numbers() -> None:
    from tensorflow_serving.apis.get_model_status_pb2 import ModelVersionStatus

    assert dict(ModelVersionStatus.State.items()) == {"UNKNOWN": 0, **STATES}


def test_there_is_always_a_version_that_answers(operator: Any) -> None:
    operator.serve(1)
    seen: list[float] = []
    is_over = threading.Event()

    def ask() -> None:
        while not is_over.is_set():
            seen.append(operator.answer())

    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask) for _ in range(4)]
        for version in (2, 3, 2, 1):
            if not (operator.home / f"own/{version}").exists():
                operator.add(version)
            operator.reload(operator.entry(versions=[version]))
            operator.client.until(lambda version=version: operator.answer() == version, lambda: str(operator.states()))
        is_over.set()
        for one in asking:
            one.result()
    assert set(seen) == {1.0, 2.0, 3.0}


def test_what_was_unloaded_stays_listed_as_ended(operator: Any) -> None:
    operator.serve(1)
    operator.add(2)
    operator.reload(operator.entry(versions=[2]))
    operator.wait_for({2: "AVAILABLE", 1: "END"})
    operator.reload()
    operator.wait_for({2: "END", 1: "END"})
    assert operator.client.status(operator.name)[2].status.error_code == 0


def test_a_request_that_runs_is_answered_by_the_version_that_began_it(operator: Any) -> None:
    operator.add(1, source="slow/1")
    operator.reload(operator.entry())
    request = client_lab.predict_request(operator.name, {"x": [5.0]})
    running = operator.client.prediction.Predict.future(request, timeout=60)
    time.sleep(0.3)  # it is on its way, and runs for two seconds
    operator.add(2)
    operator.reload(operator.entry(versions=[2]))
    operator.client.until(lambda: operator.states().get(2) == "AVAILABLE", lambda: str(operator.states()))
    response = running.result()
    assert (response.model_spec.version.value, client_lab.numbers(response, "y")) == (1, [5.0])
    operator.wait_for({2: "AVAILABLE", 1: "END"})


def _no_graph(version: Any) -> None:
    (version / "saved_model.pb").unlink()


def _cut_graph(version: Any) -> None:
    data = (version / "saved_model.pb").read_bytes()
    (version / "saved_model.pb").write_bytes(data[: len(data) // 2])


def _no_weights(version: Any) -> None:
    next((version / "variables").glob("variables.data*")).unlink()


def _cut_weights(version: Any) -> None:
    path = next((version / "variables").glob("variables.data*"))
    path.write_bytes(path.read_bytes()[:1])


def _flipped_weights(version: Any) -> None:
    path = next((version / "variables").glob("variables.data*"))
    path.write_bytes(bytes(byte ^ 0x10 for byte in path.read_bytes()))


class TestBrokenVersions:
    @pytest.mark.parametrize("break_it", [_no_graph, _cut_graph, _no_weights, _cut_weights, _flipped_weights])
    def test_the_old_version_goes_on_serving_and_the_error_is_told(self, operator: Any, break_it: Any) -> None:
        operator.add(1)
        operator.reload(operator.entry())
        broken = operator.add("away", source="plus/2")
        break_it(broken)
        broken.rename(operator.home / "own/2")
        operator.wait_for({2: "END", 1: "AVAILABLE"})
        status = operator.client.status(operator.name)[2].status
        assert status.error_code != 0
        assert status.error_message
        assert operator.answer() == 1.0
        found = operator.client.refused(lambda: operator.answer(version=2))
        assert found == ("NOT_FOUND", f"Servable not found for request: Specific({operator.name}, 2)")

    def test_a_directory_without_a_graph(self, operator: Any) -> None:
        operator.add(1)
        (operator.home / "own/2").mkdir()
        operator.reload(operator.entry(versions=[1, 2]))
        operator.wait_for({2: "END", 1: "AVAILABLE"})
        status = operator.client.status(operator.name)[2].status
        assert status.error_code == 5
        assert "does not appear to contain a SavedModel bundle" in status.error_message
        assert "`saved_model.pb`" in status.error_message

    def test_a_session_bundle_of_old(self, operator: Any) -> None:
        operator.add(1)
        old = operator.home / "own/.2"
        old.mkdir()
        (old / "export.meta").write_bytes(b"old")
        old.rename(operator.home / "own/2")
        operator.reload(operator.entry(versions=[1, 2]))
        operator.wait_for({2: "END", 1: "AVAILABLE"})
        status = operator.client.status(operator.name)[2].status
        assert (status.error_code, status.error_message) == (12, "Session Bundle is deprecated and removed.")

    def test_a_higher_version_is_tried_after_a_broken_one(self, operator: Any) -> None:
        operator.add(1)
        operator.reload(operator.entry())
        (operator.home / "own/2").mkdir()
        operator.wait_for({2: "END", 1: "AVAILABLE"})
        operator.add(3)
        operator.wait_for({3: "AVAILABLE", 2: "END", 1: "END"})
        assert operator.answer() == 3.0

    def test_a_broken_version_that_went_away_and_came_back_whole_is_tried_again(self, operator: Any) -> None:
        operator.add(1)
        operator.reload(operator.entry())
        (operator.home / "own/2").mkdir()
        operator.wait_for({2: "END", 1: "AVAILABLE"})
        operator.reload(operator.entry(versions=[1]))
        (operator.home / "own/2").rmdir()
        operator.add(2)
        operator.reload(operator.entry())
        operator.wait_for({2: "AVAILABLE", 1: "END"})
        assert operator.client.status(operator.name)[2].status.error_code == 0


class TestRetries:
    def test_a_load_is_tried_again_and_the_state_is_loading_meanwhile(
        self, command: Any, zoo: Any, tmp_path: Any
    ) -> None:
        base = tmp_path / "base"
        shutil.copytree(zoo / "plus/1", base / "1")
        resident = server_lab.model_config("half_plus_two", zoo / "half_plus_two")
        files = {"models": server_lab.config_text(resident, server_lab.model_config("retried", base))}
        flags = (
            "--model_config_file={directory}/models",
            "--file_system_poll_wait_seconds=1",
            "--max_num_load_retries=1000",
            "--load_retry_interval_micros=300000",
        )
        with (
            server_lab.started(command, *flags, files=files) as server,
            server_lab.open_channel(server.target) as channel,
        ):
            client = client_lab.Client(rest_port=server.rest_port, channel=channel)
            (base / "2").mkdir()
            client.wait_for("retried", {2: "LOADING", 1: "AVAILABLE"})
            client.assert_serving()
            # A version that is not wanted any more is given up, whatever tries are left.
            (base / "2").rmdir()
            client.wait_for("retried", {2: "END", 1: "AVAILABLE"})
            (base / "3").mkdir()
            client.until(lambda: client.states("retried").get(3) == "LOADING", lambda: str(client.states("retried")))
            shutil.copytree(zoo / "plus/3", base / "3", dirs_exist_ok=True)
            client.wait_for("retried", {3: "AVAILABLE", 2: "END", 1: "END"})
            assert client_lab.numbers(client.predict("retried", {"x": [0.0]}), "y") == [3.0]
