"""A command that died is started again: not one that ended well, failed, or was asked to end."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from training_cluster.hosts.launch_folder import LaunchFolder
from training_cluster.hosts.supervision import Restarts, supervise

QUICK = Restarts(limit=3, first_pause_seconds=0.001, longest_pause_seconds=0.01)


@pytest.fixture(autouse=True)
def own_signal_handlers() -> object:
    """Supervising takes SIGTERM and SIGINT for itself, as it may in a process of its own."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    return tmp_path / "run"


def counting(run_dir: Path, then: str) -> list[str]:
    """Return a command that counts its starts in `starts` and goes on with `then`."""
    return ["sh", "-c", f"echo >> {run_dir}/starts; n=$(wc -l < {run_dir}/starts); {then}"]


def starts(run_dir: Path) -> int:
    return len((run_dir / "starts").read_text().splitlines())


@pytest.mark.parametrize(
    ("then", "code", "count"),
    [
        ("exit 0", 0, 1),
        ("exit 11", 11, 1),
        ("exit 75", 75, 1),
        ("[ $n -gt 2 ] || kill -9 $$; exit 0", 0, 3),
        ("[ $n -gt 1 ] || exit 76; exit 75", 75, 2),
        ("exit 76", 76, 4),
        ("kill -9 $$", -9, 4),
    ],
)
def test_death_and_lost_peers_are_tried_again_so_often_and_nothing_else_is(
    tmp_path: Path, run_dir: Path, then: str, code: int, count: int
) -> None:
    launch = LaunchFolder(tmp_path / "launch")

    assert supervise(launch, counting(run_dir, then), run_dir=run_dir, restarts=QUICK) == code

    assert starts(run_dir) == count
    assert launch.exit_code == code
    assert launch.restarts == count - 1
    assert launch.command_pid is None


def test_as_long_as_there_are_new_checkpoints_it_is_tried_again(tmp_path: Path, run_dir: Path) -> None:
    launch = LaunchFolder(tmp_path / "launch")
    then = f"[ $n -gt 8 ] || touch {run_dir}/checkpoints/step-000000000$n.checkpoint; kill -9 $$"

    assert supervise(launch, counting(run_dir, then), run_dir=run_dir, restarts=QUICK) == -9

    # Eight with a checkpoint each, the last of which begins a new count of three.
    assert starts(run_dir) == 8 + 3
    assert "starting again in 0.001 s from step-0000000008.checkpoint" in launch.log.read_text()
    assert launch.log_tail(1) == (
        "liftgate: killed by signal 9; not started again after 3 times without a new checkpoint",
    )


def test_a_limit_of_none_tries_nothing_again(tmp_path: Path, run_dir: Path) -> None:
    command = counting(run_dir, "kill -9 $$")

    assert supervise(LaunchFolder(tmp_path / "launch"), command, run_dir=run_dir, restarts=Restarts(limit=0)) == -9
    assert starts(run_dir) == 1


def test_what_is_asked_to_end_is_not_started_again(tmp_path: Path, run_dir: Path) -> None:
    launch = LaunchFolder(tmp_path / "launch")
    command = counting(run_dir, f"touch {launch.end_requested}; kill -9 $$")

    assert supervise(launch, command, run_dir=run_dir, restarts=QUICK) == -9
    assert starts(run_dir) == 1


def test_what_a_dead_command_has_started_dies_with_it(tmp_path: Path, run_dir: Path) -> None:
    launch = LaunchFolder(tmp_path / "launch")
    command = counting(run_dir, f"sleep 100 & echo $! > {run_dir}/child; exit 11")

    supervise(launch, command, run_dir=run_dir, restarts=QUICK)

    status = Path("/proc", (run_dir / "child").read_text().strip(), "status")
    assert not status.exists() or "zombie" in status.read_text()


def test_a_command_gets_what_its_file_says_and_who_trains_with_it(tmp_path: Path, run_dir: Path) -> None:
    launch = LaunchFolder(tmp_path / "launch")
    launch.give_environment({"AWS_SECRET_ACCESS_KEY": "hidden"})
    (launch.path / "tf_config").write_text('{"task": 1}')

    supervise(launch, ["sh", "-c", 'echo "$AWS_SECRET_ACCESS_KEY $TF_CONFIG"'], run_dir=run_dir)

    assert launch.log_tail(1) == ('hidden {"task": 1}',)
    assert launch.environment_file.stat().st_mode & 0o777 == 0o600


def test_pauses_grow_to_a_minute() -> None:
    assert [Restarts().pause_seconds(count) for count in (1, 2, 3, 7, 100)] == [1, 2, 4, 60, 60]
