"""Room in the model server's memory: what is read, what is judged, and the swap where both versions do not fit."""

from __future__ import annotations

import logging
import os
import socket
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from artifact_sync.errors import ModelServerError
from serving.memory_budget import MemoryReading, judge_room, learn, needed_bytes, reusable_bytes
from serving.model_server import VersionState, VersionStatus
from serving.server_driver import ServerDriver
from serving.server_memory import ServerMemory, server_pid

MIB = 1024 * 1024


def reading(headroom: int | None, *, limit: int | None = 1000) -> MemoryReading:
    mib = headroom * MIB if headroom is not None else None
    return MemoryReading(mib, limit * MIB if limit is not None else None, None, "its control group")


@pytest.mark.parametrize(
    ("needed", "freed", "headroom", "room"),
    [
        (100, 0, 151, "beside"),
        # Five in a hundred of the limit stay free.
        (100, 0, 149, "none"),
        (100, 80, 149, "swap"),
        (100, 80, 60, "none"),
        (100, 80, -10, "none"),
    ],
)
def test_a_version_fits_beside_the_old_one_in_its_place_or_not_at_all(
    needed: int, freed: int, headroom: int, room: str
) -> None:
    verdict = judge_room(needed=needed * MIB, freed=freed * MIB, reading=reading(headroom))
    assert verdict.room == room
    assert f"about {needed} MiB needed, {max(0, headroom)} MiB free of 1000 MiB (its control group)" in verdict.figures


def test_where_nothing_is_known_nothing_is_refused() -> None:
    assert judge_room(needed=10**15, freed=0, reading=reading(None)).room == "beside"


def test_what_a_load_took_is_learnt_at_once_upwards_and_slowly_downwards() -> None:
    files = 100 * MIB
    first = learn(None, grown_bytes=needed_bytes(files, factor=2.0), file_bytes=files)
    assert first == 2.0
    assert learn(first, grown_bytes=needed_bytes(files, factor=6.0), file_bytes=files) == 6.0
    assert learn(6.0, grown_bytes=needed_bytes(files, factor=2.0), file_bytes=files) == 5.0
    # A server that reuses what it has does not grow; a small version's growth is not its own.
    assert learn(6.0, grown_bytes=0, file_bytes=files) == 6.0
    assert learn(None, grown_bytes=500 * MIB, file_bytes=1 * MIB) is None
    assert learn(None, grown_bytes=10_000 * MIB, file_bytes=10 * MIB) == 20.0


def test_what_a_process_keeps_of_versions_that_left_it_is_used_again() -> None:
    def kept(now: int, needed: int) -> int:
        return reusable_bytes(peak_bytes=900, peak_needed=300, now_bytes=now, now_needed=needed)

    assert kept(900, 100) == 200, "nothing was given back"
    assert kept(750, 100) == 50
    assert kept(600, 100) == 0, "all of it was"
    assert kept(350, 100) == 0, "it was started anew"
    assert kept(900, 300) == 0


# What the system says.


@pytest.fixture
def listener(tmp_path: Path) -> Any:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        yield f"unix:{path}"


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def system(tmp_path: Path) -> Path:
    root = tmp_path / "system"
    write(root / "proc/meminfo", f"MemTotal: {8000 * 1024} kB\nMemAvailable: {5000 * 1024} kB\n")
    write(root / f"proc/{os.getpid()}/status", f"Name:\tserver\nVmRSS:\t {300 * 1024} kB\n")
    return root


def read(system: Path, address: str, **named: Any) -> MemoryReading:
    return ServerMemory(address, proc=system / "proc", cgroup=system / "cgroup", **named).read()


def test_the_process_behind_a_socket_is_known(listener: str) -> None:
    assert server_pid(listener) == os.getpid()
    assert server_pid("unix:/nowhere/at/all") is None
    assert server_pid("127.0.0.1:8500") is None


def test_a_control_group_of_version_2_limits_the_server_and_file_pages_are_no_use(listener: str, system: Path) -> None:
    write(system / f"proc/{os.getpid()}/cgroup", "0::/system.slice/server.service\n")
    group = system / "cgroup/system.slice/server.service"
    write(group / "memory.max", f"{1000 * MIB}\n")
    write(group / "memory.current", f"{700 * MIB}\n")
    write(group / "memory.stat", f"anon {300 * MIB}\ninactive_file {200 * MIB}\n")
    found = read(system, listener)
    assert (found.headroom_bytes, found.limit_bytes) == (500 * MIB, 1000 * MIB)
    assert (found.server_bytes, found.source) == (300 * MIB, "its control group")


def test_the_narrowest_of_a_group_and_those_around_it_counts(listener: str, system: Path) -> None:
    write(system / f"proc/{os.getpid()}/cgroup", "0::/outer/inner\n")
    for name, limit, used in (("outer/inner", "max", 10), ("outer", str(400 * MIB), 350), ("", str(9000 * MIB), 10)):
        write(system / "cgroup" / name / "memory.max", f"{limit}\n")
        write(system / "cgroup" / name / "memory.current", f"{used * MIB}\n")
    assert read(system, listener).headroom_bytes == 50 * MIB


def test_a_control_group_of_version_1_limits_the_server_too(listener: str, system: Path) -> None:
    write(system / f"proc/{os.getpid()}/cgroup", "4:cpu:/x\n3:memory:/docker/abc\n0::/\n")
    group = system / "cgroup/memory/docker/abc"
    write(group / "memory.limit_in_bytes", f"{600 * MIB}\n")
    write(group / "memory.usage_in_bytes", f"{500 * MIB}\n")
    write(group / "memory.stat", f"total_inactive_file {100 * MIB}\n")
    write(system / "cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
    write(system / "cgroup/memory/memory.usage_in_bytes", "1\n")
    assert read(system, listener).headroom_bytes == 200 * MIB


def test_a_machine_with_less_than_the_group_allows_counts(listener: str, system: Path) -> None:
    write(system / f"proc/{os.getpid()}/cgroup", "0::/\n")
    found = read(system, listener)
    assert (found.headroom_bytes, found.limit_bytes, found.source) == (5000 * MIB, 8000 * MIB, "the machine's")


def test_a_limit_that_is_set_comes_first(listener: str, system: Path) -> None:
    found = read(system, listener, limit_bytes=1000 * MIB)
    assert (found.headroom_bytes, found.source) == (700 * MIB, "memory_limit_bytes")
    elsewhere = read(system, "10.0.0.1:8500", limit_bytes=1000 * MIB)
    assert (elsewhere.headroom_bytes, elsewhere.server_bytes) == (1000 * MIB, None)


def test_the_real_system_can_be_read(listener: str) -> None:
    found = ServerMemory(listener).read()
    assert found.headroom_bytes is not None
    assert found.server_bytes is not None
    assert found.server_bytes > MIB


# What the agent does with it.


class Hoarder:
    """A server's process that gives nothing back, with room for two versions of 35 MiB."""

    def __init__(self, server: Any) -> None:
        self.server, self.most = server, 0

    def read(self) -> MemoryReading:
        held = len(self.server.available) * needed_bytes(35 * MIB, factor=1.0)
        self.most = max(self.most, held)
        return MemoryReading(140 * MIB - self.most, None, self.most, "a test's")


def test_a_server_that_gives_no_memory_back_takes_one_release_after_the_other(
    agent_lab: ModuleType, memory_path: Path
) -> None:
    lab = agent_lab.Lab(memory_path, settings={"bake_seconds": 0})
    lab.initialise()
    hoarder = Hoarder(lab.server)
    for version in (1, 2, 3, 4):
        export = agent_lab.write_export(lab.root / "runs" / str(version), weight=float(version))
        (export / "variables" / "more").write_bytes(b"\0" * (35 * MIB - 18 - 7))
        lab.publish(version)
        report = lab.agent(memory=hoarder).tick()
        assert report.served == {"stable": version}, report
    hoarder.most += 40 * MIB
    lab.publish(1)
    assert lab.agent(memory=hoarder).tick().served == {"stable": 4}, "what something else took is not there"


def make(agent_lab: ModuleType, path: Path, **settings: Any) -> Any:
    """A host with room for one version, which serves version 1."""
    lab = agent_lab.Lab(path, settings={"bake_seconds": 0, **settings})
    lab.initialise()
    lab.limit_versions = 1.6
    lab.publish(1)
    assert lab.agent().tick().served == {"stable": 1}
    return lab


def steps(report: Any) -> list[str]:
    return [step.name for step in report.steps]


def test_a_version_that_does_not_fit_is_refused_before_it_is_loaded(agent_lab: ModuleType, memory_path: Path) -> None:
    lab = make(agent_lab, memory_path)
    lab.publish(2)
    report = lab.agent().tick()
    assert steps(report) == ["PullVersion", "CheckMemory", "Acknowledge"]
    assert (report.outcome, report.exit_code, report.served) == ("refused", 12, {"stable": 1})
    (said,) = lab.acknowledgements(2)
    assert "does not fit into the model server's memory beside the served one. Memory: about 32 MiB" in said.detail
    assert "set when_memory_is_short to swap" in said.detail
    assert len(lab.server.reloads) == 2, "nothing was loaded"


def test_a_swap_is_announced_then_the_old_version_leaves_before_the_new_one_comes(
    agent_lab: ModuleType, memory_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lab = make(agent_lab, memory_path, when_memory_is_short="swap")
    lab.server.may_be_empty = True
    lab.publish(2)
    with caplog.at_level(logging.WARNING, logger="liftgate.agent"):
        report = lab.agent().tick()
    assert steps(report)[1:6] == ["CheckMemory", "AnnounceSwap", "SwapOut", "LoadVersions", "ProbeVersion"]
    assert (report.outcome, report.served, report.loaded) == ("serving", {"stable": 2}, (2,))
    assert "Version 1 makes room for version 2: both do not fit" in caplog.text
    announced = lab.acknowledgements(1)[-1]
    assert (announced.outcome, announced.serving_version) == ("serving", 1)
    assert "Requests fail from now" in announced.detail
    assert "32 MiB more once the old version is unloaded" in lab.acknowledgements(2)[-1].detail
    assert all(len(configs[0].versions) == 1 for configs in lab.server.reloads if configs)


def test_a_swap_that_fails_brings_the_old_version_back(agent_lab: ModuleType, memory_path: Path) -> None:
    lab = make(agent_lab, memory_path, when_memory_is_short="swap")
    lab.server.may_be_empty = True
    lab.server.broken[2] = "it does not load"
    lab.publish(2)
    report = lab.agent().tick()
    assert (report.outcome, report.served, report.loaded) == ("failed", {"stable": 1}, (1,))
    assert [said.outcome for said in lab.acknowledgements(2)] == ["failed"]


class SlowlyUnloading:
    """A server in which version 1 is UNLOADING for some looks before its memory is free."""

    def __init__(self, looks: float) -> None:
        self.looks, self.asked = looks, 0

    def reload(self, configs: Any, *, timeout_seconds: float) -> None:
        assert configs == ()

    def status(self, model: str) -> Any:
        self.asked += 1
        state = VersionState.UNLOADING if self.asked <= self.looks else VersionState.END
        return (VersionStatus(1, state),)


def driver(lab: Any, server: SlowlyUnloading) -> ServerDriver:
    parts = {"model": "shapes", "model_dir": lab.model_dir, "settings": lab.settings, "clock": lab.clock}
    return ServerDriver(server=server, should_stop=lambda: False, **parts)


def test_a_swap_waits_until_the_old_version_has_given_its_memory_back(agent_lab: ModuleType, tmp_path: Path) -> None:
    lab = agent_lab.Lab(tmp_path)
    server = SlowlyUnloading(20)
    driver(lab, server).vacate((), labels={})
    assert server.asked == 21
    with pytest.raises(ModelServerError, match="does not let go of version 1"):
        driver(lab, SlowlyUnloading(float("inf"))).vacate((), labels={})


def test_a_version_that_does_not_fit_even_alone_is_refused_by_a_host_that_swaps(
    agent_lab: ModuleType, memory_path: Path
) -> None:
    lab = make(agent_lab, memory_path, when_memory_is_short="swap")
    lab.limit_versions = 1.0
    lab.publish(2)
    report = lab.agent().tick()
    assert (report.outcome, report.served) == ("refused", {"stable": 1})
    assert "release a smaller model" in report.detail


def test_the_way_back_swaps_whatever_the_settings_say(agent_lab: ModuleType, memory_path: Path) -> None:
    lab = make(agent_lab, memory_path)
    lab.limit_versions = 100.0
    lab.publish(2)
    agent = lab.agent()
    assert agent.tick().served == {"stable": 2}
    agent.tick()
    assert lab.server.available == {2}
    lab.limit_versions, lab.store.is_away = 1.6, True
    lab.server.may_be_empty = True
    report = lab.agent().return_to_last_good(reason="users complain")
    assert "SwapOut" in steps(report)
    assert (report.served, report.loaded) == ({"stable": 1}, (1,))


def test_an_emptied_server_gets_what_was_accepted_without_a_question(agent_lab: ModuleType, memory_path: Path) -> None:
    lab = make(agent_lab, memory_path)
    lab.limit_versions = 0.5
    lab.server.config, lab.server.states, lab.server.weights = None, {}, {}
    assert steps(lab.agent().tick()) == ["LoadVersions", "ProbeVersion", "MoveLabels"]


def test_what_a_load_took_is_remembered(agent_lab: ModuleType, memory_path: Path) -> None:
    lab = make(agent_lab, memory_path)
    lab.limit_versions = 100.0
    (lab.root / "runs").mkdir(exist_ok=True)
    agent_lab.write_export(lab.root / "runs" / "2", weight=2.0)
    (lab.root / "runs" / "2" / "variables" / "more").write_bytes(b"\0" * (8 * MIB))
    lab.publish(2)
    assert lab.agent().tick().served == {"stable": 2}
    # The server in memory grows by as much for every version, the part that is always counted.
    assert lab.state()["memory_factor"] == 1.0
