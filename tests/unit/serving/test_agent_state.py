"""What the agent remembers, and how it changes."""

from __future__ import annotations

import errno
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from serving import state_file as state_file_module
from serving.agent_changes import after_acceptance, after_failure, after_figures, after_withdrawal
from serving.agent_state import Accepted, Account, AgentState, Baking, Failure, Said, Watch, Withdrawal
from serving.state_file import StateFile

NOW = datetime(2026, 11, 20, 6, 0, tzinfo=UTC)
DIGEST = "a" * 64
FRESH = AgentState(model="shapes")


def accept(
    state: AgentState, release: int, *, is_fallback: bool = False, bake_seconds: float = 600, **labels: int
) -> AgentState:
    return after_acceptance(
        state,
        release=release,
        release_sha256=DIGEST,
        labels=labels,
        is_fallback=is_fallback,
        now=NOW,
        bake_seconds=bake_seconds,
    )


def fail(state: AgentState, release: int, *, version: int | None = None) -> AgentState:
    return after_failure(
        state,
        release=release,
        version=version,
        cause="load",
        outcome="failed",
        detail="broken",
        now=NOW,
        retry_seconds=30,
        retry_limit_seconds=100,
    )


def test_the_record_survives_a_round_trip() -> None:
    full = AgentState(
        model="shapes",
        highest_release=9,
        accepted=Accepted(release=9, release_sha256=DIGEST, stable=4, canary=5, since=NOW),
        last_good=3,
        baking=Baking(version=3, until=NOW),
        failure=Failure(release=9, version=4, cause="golden", outcome="failed", detail="no", attempts=2, retry_at=NOW),
        withdrawal=Withdrawal(release=9, version=4, reason="users complain"),
        watch=Watch(release=9, version=4, before=3, until=NOW),
        seen_at=NOW,
        offered=(3, 4),
        announced_swap=9,
        account=Account(release=9, figures={"memory": "enough"}),
        memory_factor=2.5,
        said=Said(release=9, outcome="serving", cause="", serving_version=4),
    )
    assert AgentState.from_json(full.to_json()) == full
    assert full.accepted is not None
    assert full.accepted.labels == {"stable": 4, "canary": 5}


def test_the_first_acceptance_has_no_version_before() -> None:
    state = accept(FRESH, 1, stable=1)
    assert (state.last_good, state.baking) == (None, None)


def test_a_move_makes_the_version_before_the_last_good_one_and_lets_it_bake() -> None:
    state = accept(accept(FRESH, 1, stable=1), 2, stable=2)
    assert state.last_good == 1
    assert state.baking == Baking(version=1, until=NOW + timedelta(seconds=600))


def test_without_a_bake_time_nothing_bakes() -> None:
    assert accept(accept(FRESH, 1, stable=1), 2, bake_seconds=0, stable=2).baking is None


def test_a_new_stable_version_is_watched_for_its_bake_time_unless_it_came_by_a_rollback() -> None:
    first = accept(FRESH, 1, stable=1)
    moved = accept(first, 2, stable=2)
    assert moved.watch == Watch(release=2, version=2, before=1, until=NOW + timedelta(seconds=600))
    assert accept(moved, 3, stable=2, canary=3).watch == moved.watch, "a canary does not end it"
    assert accept(moved, 2, is_fallback=True, stable=1).watch is None
    back = after_acceptance(
        moved,
        release=3,
        release_sha256=DIGEST,
        labels={"stable": 1},
        is_fallback=False,
        is_watched=False,
        now=NOW,
        bake_seconds=600,
    )
    assert back.watch is None
    assert back.baking is not None


def test_figures_are_kept_for_one_release_and_may_be_said_again() -> None:
    told = FRESH.model_copy(update={"said": Said(release=1, outcome="serving", cause="", serving_version=1)})
    one = after_figures(told, release=1, about="memory", figures="enough")
    both = after_figures(one, release=1, about="traffic", figures="fine", is_said_again=True)
    assert both.account == Account(release=1, figures={"memory": "enough", "traffic": "fine"})
    assert (one.said, both.said) == (told.said, None)
    assert after_figures(both, release=2, about="memory", figures="short").account.figures == {"memory": "short"}


def test_a_canary_can_be_withdrawn_alone() -> None:
    state = accept(FRESH, 1, stable=1, canary=2)
    withdrawn = after_withdrawal(state, reason="errors", cause="traffic", label="canary").withdrawal
    assert withdrawn == Withdrawal(release=1, version=2, reason="errors", cause="traffic", label="canary")
    assert after_withdrawal(state, reason="errors", label="shadow") == state


def test_a_file_of_the_first_schema_is_understood(tmp_path: Path) -> None:
    old = (
        b'{"accepted":{"canary":null,"release":1,"release_sha256":"' + DIGEST.encode() + b'","shadow":null,'
        b'"since":"2026-11-20T06:00:00Z","stable":1},"baking":null,"failure":null,"highest_release":1,'
        b'"last_good":null,"model":"shapes","offered":[1],"said":null,"schema":"liftgate.agent-state/1",'
        b'"withdrawal":{"reason":"users complain","release":1,"version":1}}'
    )
    (tmp_path / "state.json").write_bytes(old)
    file = StateFile(tmp_path / "state.json", model="shapes")
    assert file.load() == ""
    assert file.state.withdrawal == Withdrawal(release=1, version=1, reason="users complain")
    file.write(after_figures(file.state, release=1, about="memory", figures="enough"))
    assert b"liftgate.agent-state/2" in (tmp_path / "state.json").read_bytes()


def test_a_change_of_the_canary_alone_keeps_the_last_good_version() -> None:
    state = accept(accept(accept(FRESH, 1, stable=1), 2, stable=2), 3, stable=2, canary=3)
    assert state.last_good == 1
    assert state.accepted is not None
    assert state.accepted.canary == 3


def test_an_acceptance_ends_a_failure_and_a_fallback_does_not() -> None:
    failed = fail(accept(FRESH, 1, stable=1), 2)
    assert accept(failed, 2, stable=2).failure is None
    assert accept(failed, 2, is_fallback=True, stable=1).failure == failed.failure


def test_each_failure_of_one_release_doubles_the_pause_up_to_the_limit() -> None:
    state, pauses = FRESH, []
    for _ in range(4):
        state = fail(state, 1)
        assert state.failure is not None
        assert state.failure.retry_at is not None
        pauses.append((state.failure.retry_at - NOW).total_seconds())
    assert pauses == [31, 61, 101, 101]


def test_another_release_starts_with_the_short_pause() -> None:
    state = fail(fail(fail(FRESH, 1), 1), 2)
    assert state.failure is not None
    assert state.failure.attempts == 1


def test_a_withdrawal_holds_until_another_release_is_accepted() -> None:
    state = after_withdrawal(accept(FRESH, 1, stable=7), reason="users complain")
    assert state.withdrawal == Withdrawal(release=1, version=7, reason="users complain")
    assert fail(state, 1).withdrawal == state.withdrawal, "a failure of the way back does not undo it"
    assert accept(state, 1, is_fallback=True, stable=3).withdrawal == state.withdrawal
    assert accept(state, 2, stable=7).withdrawal is None
    assert after_withdrawal(FRESH, reason="nothing to withdraw") == FRESH


def test_the_file_holds_what_was_written(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "state.json", model="shapes")
    assert file.load() == ""
    assert file.state == FRESH
    file.write(accept(FRESH, 1, stable=1))
    again = StateFile(tmp_path / "state.json", model="shapes")
    assert again.load() == ""
    assert again.state == file.state


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"\xff", b'{"schema":"liftgate.agent-state/1"}', AgentState(model="flowers").to_json()]
)
def test_a_file_that_cannot_be_believed_is_set_aside(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "state.json"
    path.write_bytes(data)
    file = StateFile(path, model="shapes")
    assert "set aside as state.json.unreadable" in file.load()
    assert file.state == FRESH
    assert not path.exists()
    assert (tmp_path / "state.json.unreadable").read_bytes() == data


def test_on_a_full_disk_the_process_remembers_and_other_errors_are_not_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = StateFile(tmp_path / "state.json", model="shapes")
    state = accept(FRESH, 1, stable=1)
    monkeypatch.setattr(state_file_module, "write_durably", _raise(OSError(errno.ENOSPC, "No space left on device")))
    file.write_if_room(state)
    assert file.state == state
    monkeypatch.setattr(state_file_module, "write_durably", _raise(OSError(errno.EACCES, "Permission denied")))
    with pytest.raises(PermissionError):
        file.write_if_room(FRESH)


def _raise(error: OSError):
    def write(path: Path, data: bytes) -> None:
        raise error

    return write
