"""Loading, failing, retrying, unloading and labels, with models that a test opens and closes by hand."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from serving.embedded_server.catalogue import Catalogue, ModelVersion
from serving.embedded_server.discovery import ServedModel, VersionPolicy
from serving.embedded_server.lifecycle import Lifecycle, LifecycleSettings
from serving.embedded_server.status import Code, StatusError
from serving.embedded_server.transition import Stage, resource_preserving

PATIENCE_SECONDS = 10


class FakeModel:
    signature_defs: dict[str, object] = {}  # noqa: RUF012

    def __init__(self) -> None:
        self.is_closed = False

    def run(self, feeds: object, fetches: object, *, timeout_seconds: float | None) -> list[object]:
        assert not self.is_closed
        return []

    def close(self) -> None:
        self.is_closed = True


class Loader:
    """Loads what a test lets through; `broken` versions fail, `held` ones wait for `release`."""

    def __init__(self) -> None:
        self.broken: set[str] = set()
        self.held: set[str] = set()
        self.release = threading.Event()
        self.loads: list[str] = []
        self.models: dict[str, FakeModel] = {}

    def __call__(self, entry: ModelVersion) -> FakeModel:
        path = entry.path
        self.loads.append(path.name)
        if path.name in self.held:
            assert self.release.wait(PATIENCE_SECONDS)
        if path.name in self.broken:
            raise StatusError(Code.DATA_LOSS, f"{path.name} is broken")
        self.models[path.name] = FakeModel()
        return self.models[path.name]


class Bench:
    """A lifecycle over a directory of empty versions."""

    def __init__(self, base: Path, settings: LifecycleSettings) -> None:
        self.base = base
        self.loader = Loader()
        self.catalogue = Catalogue()
        self.lifecycle = Lifecycle(self.catalogue, load=self.loader, settings=settings)
        self.lifecycle.start()

    def put(self, *versions: int) -> None:
        for version in versions:
            (self.base / str(version)).mkdir(parents=True)

    def want(self, *versions: int, labels: dict[str, int] | None = None, may_wait: bool = False) -> tuple[str, ...]:
        model = ServedModel("m", self.base, VersionPolicy(specific=versions), labels or {})
        return self.lifecycle.apply([model], may_new_labels_wait=may_wait)

    def stages(self) -> dict[int, Stage]:
        return {entry.version: entry.stage for entry in self.catalogue.all_versions()}

    def wait(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        with self.catalogue.changed:
            # What the loader notes is not announced, so it is looked for again and again.
            while not condition():
                assert time.monotonic() < deadline, self.stages()
                self.catalogue.changed.wait(0.01)

    def wait_for(self, **stages: Stage) -> None:
        expected = {int(name.removeprefix("v")): stage for name, stage in stages.items()}
        self.wait(lambda: self.stages() == expected)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path, LifecycleSettings(poll_seconds=0, max_load_retries=0))
    yield bench
    bench.loader.release.set()
    bench.lifecycle.stop()


def test_the_old_version_answers_while_the_new_one_loads(bench: Bench) -> None:
    bench.put(1, 2)
    bench.want(1)
    bench.wait_for(v1=Stage.READY)
    bench.loader.held = {"2"}
    bench.want(2)
    bench.wait(lambda: bench.loader.loads == ["1", "2"])
    with bench.catalogue.borrow("m") as entry:
        assert entry.version == 1
    bench.loader.release.set()
    bench.wait_for(v1=Stage.ENDED, v2=Stage.READY)
    assert bench.loader.models["1"].is_closed


def test_a_version_is_closed_only_after_the_last_request_on_it(bench: Bench) -> None:
    bench.put(1, 2)
    bench.want(1)
    bench.wait_for(v1=Stage.READY)
    with bench.catalogue.borrow("m") as entry:
        bench.want(2)
        bench.wait_for(v1=Stage.UNLOADING, v2=Stage.READY)
        with bench.catalogue.borrow("m") as newer:
            assert newer.version == 2
        assert not bench.loader.models["1"].is_closed
        assert entry.loaded is bench.loader.models["1"]
    bench.wait_for(v1=Stage.ENDED, v2=Stage.READY)
    assert bench.loader.models["1"].is_closed


def test_a_version_that_does_not_load_leaves_the_old_one_and_says_why(bench: Bench) -> None:
    bench.put(1, 2)
    bench.loader.broken = {"2"}
    bench.want(1)
    bench.wait_for(v1=Stage.READY)
    bench.want(2)
    bench.wait_for(v1=Stage.READY, v2=Stage.ENDED)
    error = bench.catalogue.status("m", 2)[0].error
    assert error is not None
    assert str(error) == "DATA_LOSS: 2 is broken"


def test_a_failed_version_is_not_tried_again_until_it_was_dropped(bench: Bench) -> None:
    bench.put(1, 2)
    bench.loader.broken = {"2"}
    bench.want(1, 2)
    bench.wait_for(v1=Stage.READY, v2=Stage.ENDED)
    bench.loader.broken = set()
    bench.want(1, 2)
    assert bench.loader.loads.count("2") == 1
    bench.want(1)
    bench.want(1, 2)
    bench.wait_for(v1=Stage.READY, v2=Stage.READY)


def test_a_failed_version_is_tried_again_once_its_files_have_changed_and_are_at_rest(tmp_path: Path) -> None:
    bench = Bench(tmp_path, LifecycleSettings(poll_seconds=0.01, max_load_retries=0))
    bench.put(1, 2)
    bench.loader.broken = {"2"}
    bench.lifecycle.apply([ServedModel("m", tmp_path)], may_new_labels_wait=False)
    bench.wait_for(v2=Stage.ENDED)
    (tmp_path / "2/saved_model.pb").write_bytes(b"the rest of the copy")
    bench.wait(lambda: len(bench.loader.loads) >= 2)
    bench.wait_for(v2=Stage.ENDED)
    bench.loader.broken = set()
    (tmp_path / "2/saved_model.pb").write_bytes(b"and now whole")
    bench.wait_for(v2=Stage.READY)
    bench.lifecycle.stop()
    assert bench.loader.loads == ["2", "2", "2"]


def test_resource_preserving_has_only_one_version_in_memory_at_a_time(tmp_path: Path) -> None:
    bench = Bench(tmp_path, LifecycleSettings(poll_seconds=0, transition=resource_preserving))
    bench.put(1, 2)
    bench.want(1)
    bench.wait_for(v1=Stage.READY)
    with bench.catalogue.borrow("m"):
        bench.want(2)
        bench.wait_for(v1=Stage.UNLOADING, v2=Stage.NEW)
        assert not bench.loader.models["1"].is_closed
    bench.wait_for(v1=Stage.ENDED, v2=Stage.READY)
    bench.lifecycle.stop()


def test_an_unexpected_error_of_the_loader_ends_the_version_instead_of_hanging_it(bench: Bench) -> None:
    bench.put(1)
    bench.lifecycle._load_model = lambda path: 1 / 0
    bench.want(1)
    bench.wait_for(v1=Stage.ENDED)
    assert "ZeroDivisionError" in str(bench.catalogue.status("m")[0].error)


def test_a_version_that_is_wanted_again_while_it_unloads_is_loaded_anew(bench: Bench) -> None:
    bench.put(1, 2)
    bench.want(1, 2)
    bench.wait_for(v1=Stage.READY, v2=Stage.READY)
    with bench.catalogue.borrow("m", version=1):
        bench.want(2)
        bench.wait_for(v1=Stage.UNLOADING, v2=Stage.READY)
        bench.want(1, 2)
        bench.wait_for(v1=Stage.UNLOADING, v2=Stage.READY)
    bench.wait_for(v1=Stage.READY, v2=Stage.READY)
    assert bench.loader.loads.count("1") == 2


def test_a_version_that_is_dropped_while_it_loads_goes_away_afterwards(bench: Bench) -> None:
    bench.put(1, 2)
    bench.want(1)
    bench.wait_for(v1=Stage.READY)
    bench.loader.held = {"2"}
    bench.want(1, 2)
    bench.wait(lambda: "2" in bench.loader.loads)
    bench.want(1)
    bench.loader.release.set()
    bench.wait_for(v1=Stage.READY, v2=Stage.ENDED)
    assert bench.loader.models["2"].is_closed


def test_a_load_is_tried_again_as_often_as_was_said(tmp_path: Path) -> None:
    settings = LifecycleSettings(poll_seconds=0, max_load_retries=2, load_retry_seconds=0)
    bench = Bench(tmp_path, settings)
    bench.put(1)
    bench.loader.broken = {"1"}
    bench.want(1)
    bench.wait_for(v1=Stage.ENDED)
    bench.lifecycle.stop()
    assert bench.loader.loads == ["1", "1", "1"]


def test_a_dropped_version_is_not_tried_again(tmp_path: Path) -> None:
    bench = Bench(tmp_path, LifecycleSettings(poll_seconds=0, max_load_retries=5, load_retry_seconds=3600))
    bench.put(1, 2)
    bench.loader.broken = {"2"}
    bench.want(1, 2)
    bench.wait(lambda: bench.stages().get(1) is Stage.READY and bench.catalogue.versions("m")[2].failed_attempts == 1)
    assert bench.stages()[2] is Stage.LOADING
    bench.want(1)
    bench.wait_for(v1=Stage.READY, v2=Stage.ENDED)
    bench.lifecycle.stop()


def test_new_directories_are_found_by_polling(tmp_path: Path) -> None:
    bench = Bench(tmp_path, LifecycleSettings(poll_seconds=0.01))
    bench.put(1)
    bench.lifecycle.apply([ServedModel("m", tmp_path)], may_new_labels_wait=False)
    bench.wait_for(v1=Stage.READY)
    bench.put(2)
    bench.wait_for(v1=Stage.ENDED, v2=Stage.READY)
    bench.lifecycle.stop()


def test_one_missing_base_path_does_not_keep_other_models_from_new_versions(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "here", LifecycleSettings(poll_seconds=0.01))
    bench.put(1)
    models = [ServedModel("m", tmp_path / "here"), ServedModel("gone", tmp_path / "nowhere")]
    assert bench.lifecycle.apply(models, may_new_labels_wait=False) == ("m", "gone")
    with pytest.raises(StatusError, match=r"1 model\(s\) did not become available.*Could not find base path"):
        bench.lifecycle.wait_until_settled(("m", "gone"), timeout_seconds=PATIENCE_SECONDS)
    bench.put(2)
    bench.wait_for(v1=Stage.ENDED, v2=Stage.READY)
    bench.lifecycle.stop()


def test_waiting_ends_when_its_time_is_over(bench: Bench) -> None:
    bench.put(1)
    bench.loader.held = {"1"}
    new = bench.want(1)
    with pytest.raises(StatusError, match="still loading") as caught:
        bench.lifecycle.wait_until_settled(new, timeout_seconds=0.01)
    assert caught.value.code is Code.DEADLINE_EXCEEDED


def test_only_models_that_were_not_there_before_are_new(bench: Bench) -> None:
    bench.put(1, 2)
    assert bench.want(1) == ("m",)
    assert bench.want(1, 2) == ()


def test_a_refused_label_changes_neither_labels_nor_versions(bench: Bench) -> None:
    bench.put(1, 2)
    bench.want(1)
    bench.wait_for(v1=Stage.READY)
    bench.want(1, labels={"stable": 1})
    with pytest.raises(StatusError, match="version 2 of model m, which is not currently available") as caught:
        bench.want(1, 2, labels={"stable": 2}, may_wait=True)
    assert caught.value.code is Code.FAILED_PRECONDITION
    assert bench.stages() == {1: Stage.READY}
    with bench.catalogue.borrow("m", label="stable") as entry:
        assert entry.version == 1


def test_a_new_label_may_wait_for_its_version_only_when_that_is_allowed(bench: Bench) -> None:
    bench.put(1)
    with pytest.raises(StatusError, match="not currently available"):
        bench.want(1, labels={"stable": 1}, may_wait=False)
    bench.want(1, labels={"stable": 1}, may_wait=True)
    bench.wait_for(v1=Stage.READY)
    with bench.catalogue.borrow("m", label="stable") as entry:
        assert entry.version == 1


def test_a_dropped_model_is_unloaded(bench: Bench) -> None:
    bench.put(1)
    bench.want(1)
    bench.wait_for(v1=Stage.READY)
    bench.lifecycle.apply([], may_new_labels_wait=False)
    bench.wait_for(v1=Stage.ENDED)
    with pytest.raises(StatusError, match=r"Servable not found for request: Latest\(m\)"), bench.catalogue.borrow("m"):
        pass
