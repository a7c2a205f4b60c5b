"""kill -9 before every line of a tick, in every step, one after the other until the tick completes.

A child process is forked for each place, traces its own lines and kills itself before the k-th place
that it has not been at yet; a place is a line of the code that acts, in one step of the roll-out. The
bucket is a directory with real signed metadata; the model server lives on in the parent. After each
kill the server, the disk and the server's start-up file are inspected, as if it restarted then; the
next tick, in a new process, must finish. The file is also the program that does it: forking wants a
process without threads.
"""

from __future__ import annotations

import copy
import itertools
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
import soak

MOST_PLACES = 5_000
# Of the scenario that has the fewest.
FEWEST_PLACES = 400
# Version 3 is served and must go back to 2.
RETURNS = frozenset({"returned", "asked"})


# What follows up to the tests runs in the program.


class ServerInParent:
    """A ModelServer whose calls travel to the parent."""

    def __init__(self, connection) -> None:
        self.connection = connection

    def __getattr__(self, name):
        def call(*arguments, **named):
            self.connection.send((name, arguments, named))
            is_good, answer = self.connection.recv()
            if is_good:
                return answer
            raise answer

        return call


class World:
    """Version 2 is served and 1 is the last good one; release 3 names version 3."""

    def __init__(self, root: Path, scenario: str) -> None:
        import agent_lab

        settings = {"bake_seconds": 0, "load_timeout_seconds": 3, "when_memory_is_short": "swap", "latency_pairs": 2}
        if scenario in RETURNS:
            settings["bake_seconds"] = 600
        self.lab = agent_lab.Lab(root / "now", settings=settings)
        self.lab.initialise()
        self.scenario = scenario
        self.may_be_empty = scenario in {"swap", "swap-broken"}
        for version in (1, 2):
            self.lab.publish(version)
            self.lab.agent().tick()
        self.release = self.lab.publish(3).number
        if scenario in RETURNS:
            self.serve_three()
        if self.may_be_empty:
            self.lab.limit_versions, self.lab.server.may_be_empty = 1.6, True
        if scenario in {"broken", "swap-broken"}:
            self.lab.server.broken[3] = "it does not load"
        if scenario == "damaged":
            (self.lab.model_dir / "2" / agent_lab.GRAPH).write_bytes(b"tampered")
        if scenario == "fallback":
            self.lab.server.broken.update({2: "out of memory", 3: "out of memory"})
            self.lab.server.restart(self.lab.settings.config_path)
        # What a tick writes; signed metadata and blobs are only read.
        self.written = (self.lab.root / "host", self.lab.bucket / agent_lab.MODEL / "acknowledgements")
        self.copies = tuple(root / f"copy-{path.name}" for path in self.written)
        for path, saved in zip(self.written, self.copies, strict=True):
            shutil.copytree(path, saved)
        self.server = copy.deepcopy(self.lab.server)

    def serve_three(self) -> None:
        """Have version 3 served and wanted away: by what users' requests say, or by a person."""
        import agent_lab

        before = (1, 0, 0), (2, 5000, 5)
        self.lab.traffic.reports = (agent_lab.traffic_report(*before),)
        agent = self.lab.agent()
        agent.tick()
        assert self.lab.server.labels == {"stable": 3}
        assert not agent.must_return()
        if self.scenario == "returned":
            self.lab.traffic.reports = (agent_lab.traffic_report(*before, (3, 500, 400)),)
        else:
            agent.request_return(reason="users complain")

    def reset(self) -> None:
        for path, saved in zip(self.written, self.copies, strict=True):
            shutil.rmtree(path)
            shutil.copytree(saved, path)
        self.lab.server = copy.deepcopy(self.server)

    def tick_in_child(self, *, before_place: int | None) -> bool:
        """Run one tick in a child that dies before the given place; return whether it got through."""
        ours, theirs = multiprocessing.Pipe()
        child = os.fork()
        if child == 0:
            ours.close()
            status = 1
            try:
                agent = self.lab.agent(server=ServerInParent(theirs))
                if before_place is not None:
                    die_before(before_place)
                agent.tick()
                status = 0
            finally:
                os._exit(status)
        theirs.close()
        self.answer(ours)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            assert os.WTERMSIG(status) == signal.SIGKILL
            return False
        assert os.WEXITSTATUS(status) == 0, "the tick failed by itself"
        return True

    def answer(self, connection) -> None:
        from artifact_sync.errors import LiftgateError

        with connection:
            while True:
                try:
                    name, arguments, named = connection.recv()
                except EOFError:
                    return
                try:
                    answer = (True, getattr(self.lab.server, name)(*arguments, **named))
                except LiftgateError as error:
                    answer = (False, error)
                try:
                    connection.send(answer)
                except BrokenPipeError:
                    return

    def check_after_kill(self) -> None:
        lab = self.lab
        assert lab.server.faults == [], lab.server.faults
        restarted = copy.deepcopy(lab.server)
        if self.scenario == "fallback":
            assert lab.server.labels.get("stable") in {None, 1}, "the server came up without any version"
            restarted.broken.clear()
        elif self.may_be_empty:
            assert lab.server.labels.get("stable") in {None, 2, 3}, "neither of both nor in between"
        else:
            assert lab.server.labels["stable"] in {2, 3}, "neither the old nor the new version is served"
        restarted.restart(lab.settings.config_path)
        if self.scenario == "damaged":
            # Until the damage is seen the file names it; afterwards the last good version stands in.
            assert restarted.labels.get("stable") in {1, 2, 3}
        else:
            assert restarted.faults == [], restarted.faults
            assert restarted.labels["stable"] in ({2, 3} if self.may_be_empty else {1, 2, 3})
        self.check_directories()

    def check_directories(self) -> None:
        from artifact_sync.manifest import find_differences

        for path in self.lab.model_dir.iterdir():
            if path.name.isdecimal() and not (self.scenario == "damaged" and path.name == "2"):
                assert not find_differences(path, self.lab.manifests[int(path.name)]), f"half a version: {path}"

    def check_finished(self) -> None:
        lab = self.lab
        self.check_after_kill()
        stable, outcome, kept = {
            "good": (3, "serving", {2, 3}),
            "damaged": (3, "serving", {2, 3}),
            "broken": (2, "failed", {1, 2, 3}),
            "fallback": (1, "failed", {1, 3}),
            "swap": (3, "serving", {2, 3}),
            "swap-broken": (2, "failed", {1, 2, 3}),
            "returned": (2, "failed", {2, 3}),
            "asked": (2, "failed", {2, 3}),
        }[self.scenario]
        assert lab.server.labels == {"stable": stable}
        assert lab.server.available == {stable}
        said = [record.outcome for record in lab.acknowledgements(self.release)]
        assert said[-1] == outcome
        assert len(said) <= (3 if self.scenario in RETURNS else 2), "said more often than a kill explains"
        names = {path.name for path in lab.model_dir.iterdir()}
        directories = {int(name) for name in names if name.isdecimal()}
        assert kept <= directories
        assert names - {str(number) for number in directories} <= {
            ".pull.lock",
            ".records",
            ".traffic.json",
            "state.json",
        }, names


EFFECTS = {"os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink", "os.truncate"}


def die_before(place: int) -> None:
    """Kill this process before the given place, counting from 1.

    Places are the changes of the file system, each time, wherever they are made (the interpreter
    tells of them); the lines of the code that acts, once in each step; other lines of the agent, once.
    """
    from artifact_sync import directory_store, durable, pull
    from serving import (
        agent,
        back_request,
        server_driver,
        state_file,
        step_runner,
        tick,
        tick_look,
        traffic_marks,
        version_checks,
        version_directories,
        version_watch,
    )

    acting = {module.__file__ for module in (server_driver, step_runner, version_checks)}
    watching = (back_request, tick_look, traffic_marks, version_watch)
    modules = (agent, tick, state_file, version_directories, durable, pull, directory_store, *watching)
    once = {module.__file__ for module in modules}
    step, seen, places = ["start"], set(), itertools.count(1)

    def arrive() -> None:
        if next(places) == place:
            os.kill(os.getpid(), signal.SIGKILL)

    def audit(event, details) -> None:
        is_writing = event == "open" and isinstance(details[2], int) and details[2] & (os.O_WRONLY | os.O_RDWR)
        if event in EFFECTS or is_writing:
            arrive()

    def trace(frame, event, _):
        file = frame.f_code.co_filename
        if file not in acting and file not in once:
            return None
        if frame.f_code.co_name == "run" and "step" in frame.f_locals:
            step[0] = type(frame.f_locals["step"]).__name__
        here = (file, frame.f_lineno, step[0] if file in acting else "")
        if event == "line" and here not in seen:
            seen.add(here)
            arrive()
        return trace

    sys.addaudithook(audit)
    threading.settrace(trace)
    sys.settrace(trace)


def sweep(root: Path, scenario: str, *, first: int, stride: int) -> dict[str, int]:
    world = World(root, scenario)
    kills = 0
    for place in range(first, MOST_PLACES, stride):
        world.reset()
        has_completed = world.tick_in_child(before_place=place)
        world.check_after_kill()
        if not has_completed:
            kills += 1
            assert world.tick_in_child(before_place=None)
        world.check_finished()
        if has_completed:
            return {"kills": kills, "places": place}
    raise AssertionError(f"the tick did not complete within {MOST_PLACES} places")


def histories(root: Path, scenario: str, *, seed: int, count: int) -> dict[str, int]:
    """Kill tick after tick at random places until one gets through."""
    randomness = random.Random(seed)
    world = World(root, scenario)
    kills = 0
    for _ in range(count):
        world.reset()
        while not world.tick_in_child(before_place=randomness.randint(1, 700)):
            kills += 1
            world.check_after_kill()
            if randomness.random() < 0.1:
                break
        assert world.tick_in_child(before_place=None)
        assert world.lab.server.labels == {"stable": 3}
    return {"histories": count, "kills": kills}


def main() -> None:
    mode, scenario, *rest = sys.argv[1:]
    memory = Path("/dev/shm")
    # Nothing here waits for a disk: a killed process loses nothing that it has written.
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as root:
        if mode == "sweep":
            report = sweep(Path(root), scenario, first=int(rest[0]), stride=int(rest[1]))
        else:
            report = histories(Path(root), scenario, seed=int(rest[0]), count=int(rest[1]))
    print(json.dumps(report))


# The tests.

pytestmark = pytest.mark.timeout(soak.rounds(600, soak=7200))


def run_programs(*all_arguments: tuple[str, ...]) -> list[dict[str, int]]:
    programs = [
        subprocess.Popen(
            [sys.executable, __file__, *arguments],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for arguments in all_arguments
    ]
    outputs = [(*program.communicate(), program.returncode) for program in programs]
    for _, complaint, code in outputs:
        assert code == 0, complaint.decode()
    return [json.loads(answer) for answer, _, _ in outputs]


def sweeps(*scenarios: str, step: int) -> None:
    """Sweep the scenarios at once, and see that each was killed as often as it should."""
    places = [soak.every(step) for _ in scenarios]
    programs = [("sweep", name, str(at.first), str(at.step)) for name, at in zip(scenarios, places, strict=True)]
    for name, at, report in zip(scenarios, places, run_programs(*programs), strict=True):
        print(f"{name}: {report['kills']} kills, {at}")
        assert report["kills"] >= soak.fewest(FEWEST_PLACES, step=step)


def test_a_tick_that_is_killed_anywhere_leaves_the_old_or_the_new_version_and_is_finished_by_the_next() -> None:
    sweeps("good", step=12)


def test_no_kill_turns_a_release_that_fails_or_a_host_that_is_damaged_into_an_outage() -> None:
    sweeps("broken", "damaged", "fallback", step=50)


def test_no_kill_of_a_swap_or_of_a_return_ends_on_anything_but_a_good_version() -> None:
    sweeps("swap", "swap-broken", "returned", "asked", step=50)


def test_ticks_that_are_killed_again_and_again_get_there_in_the_end() -> None:
    seed, count = random.SystemRandom().randrange(2**32), soak.rounds(4, soak=40)
    print(f"seed {seed}")
    (report,) = run_programs(("histories", "good", str(seed), str(count)))
    print(f"{report['histories']} histories, {report['kills']} kills")
    assert report["kills"] >= count


if __name__ == "__main__":
    main()
