"""The roll-out's decisions: which step follows from which situation."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import soak
from hypothesis import given, settings
from hypothesis import strategies as st

from artifact_sync.records import ReleaseRecord, TrafficShare
from serving.agent_state import Accepted, AgentState, Baking, Failure, Said, Withdrawal
from serving.host_order import Turn
from serving.memory_budget import RoomVerdict
from serving.model_server import VersionState
from serving.rollout import plan
from serving.rollout_acknowledgement import Trouble
from serving.rollout_situation import Rules, Situation
from serving.rollout_steps import (
    Acknowledge,
    AnnounceSwap,
    CheckMemory,
    KeepForBake,
    LoadVersions,
    MeasureLatency,
    MoveLabels,
    Nothing,
    ProbeVersion,
    PullVersion,
    RecordServing,
    RemoveVersions,
    SwapOut,
    UnloadVersions,
    WaitForHosts,
    WriteConfig,
)
from serving.rollout_target import release_labels

NOW = datetime(2026, 11, 20, 6, 0, tzinfo=UTC)
LATER = NOW + timedelta(minutes=10)
UP = VersionState.AVAILABLE
OUTCOMES = ("refused", "failed")


def release(number: int, stable: int, *, canary: int | None = None) -> ReleaseRecord:
    return ReleaseRecord(
        model="shapes",
        number=number,
        kind="promotion",
        stable=stable,
        canary=TrafficShare(version=canary, percent=5) if canary else None,
        reason="because",
        by="sam",
        previous_sha256=None,
        created_at=NOW,
    )


def accepted(number: int, stable: int, *, canary: int | None = None) -> Accepted:
    digest = release(number, stable, canary=canary).sha256
    return Accepted(release=number, release_sha256=digest, stable=stable, canary=canary, since=NOW)


def failure(number: int, version: int | None, *, cause: str = "load", retry_at: datetime = LATER) -> Failure:
    return Failure(
        release=number, version=version, cause=cause, outcome="failed", detail="it broke", attempts=1, retry_at=retry_at
    )


def said(number: int, serving: int | None, *, outcome: str = "serving", cause: str = "") -> Said:
    return Said(release=number, outcome=outcome, cause=cause, serving_version=serving)


SERVING_1 = Situation(
    now=NOW,
    state=AgentState(model="shapes", highest_release=1, accepted=accepted(1, 1), offered=(1,), said=said(1, 1)),
    desired=release(1, 1),
    server={1: UP},
    labels={"stable": 1},
    on_disk=frozenset({1}),
    verified=frozenset({1}),
)
TO_2 = replace(SERVING_1, desired=release(2, 2))
HAS_2 = replace(TO_2, on_disk=frozenset({1, 2}), verified=frozenset({1, 2}))
IN_MEMORY_2 = replace(HAS_2, server={1: UP, 2: UP})


def with_state(situation: Situation, **changes: object) -> Situation:
    return replace(situation, state=situation.state.model_copy(update=changes))


def test_a_host_that_serves_what_is_desired_has_nothing_to_do() -> None:
    assert plan(SERVING_1) == Nothing(reason="stable = version 1 is served")


def test_a_new_release_is_pulled_loaded_proved_moved_and_recorded_in_this_order() -> None:
    assert plan(TO_2) == PullVersion(2)
    assert plan(HAS_2) == LoadVersions(versions=(1, 2), awaited=(2,), labels={"stable": 1})
    assert plan(IN_MEMORY_2) == ProbeVersion(2)
    proved = replace(IN_MEMORY_2, proved=frozenset({2}))
    assert plan(proved) == MoveLabels(versions=(1, 2), labels={"stable": 2})
    moved = replace(proved, labels={"stable": 2})
    assert plan(moved) == RecordServing(2, release(2, 2).sha256, {"stable": 2}, is_fallback=False)


def test_a_version_that_is_still_loading_is_waited_for_by_loading_again() -> None:
    loading = replace(HAS_2, server={1: UP, 2: VersionState.LOADING})
    assert plan(loading) == LoadVersions(versions=(1, 2), awaited=(2,), labels={"stable": 1})


def test_the_canary_of_a_release_is_pulled_and_loaded_before_any_label_moves() -> None:
    desired = release(2, 1, canary=2)
    assert plan(replace(SERVING_1, desired=desired)) == PullVersion(2)
    both = replace(IN_MEMORY_2, desired=desired, proved=frozenset({2}))
    assert plan(both) == MoveLabels(versions=(1, 2), labels={"stable": 1, "canary": 2})


def test_a_canary_that_is_dropped_loses_its_label_and_then_its_memory() -> None:
    state = AgentState(model="shapes", accepted=accepted(2, 1, canary=2), offered=(1, 2), said=said(3, 1))
    dropped = replace(IN_MEMORY_2, state=state, desired=release(3, 1), labels={"stable": 1, "canary": 2})
    assert plan(dropped) == MoveLabels(versions=(1, 2), labels={"stable": 1})
    recorded = replace(dropped, labels={"stable": 1}, state=state.model_copy(update={"accepted": accepted(3, 1)}))
    assert plan(recorded) == UnloadVersions(versions=(1,), labels={"stable": 1})


def test_the_version_before_bakes_in_memory_and_then_leaves_it() -> None:
    state = AgentState(
        model="shapes",
        accepted=accepted(2, 2),
        last_good=1,
        baking=Baking(version=1, until=LATER),
        offered=(1, 2),
        said=said(2, 2),
    )
    baking = replace(IN_MEMORY_2, state=state, labels={"stable": 2})
    assert plan(baking) == KeepForBake(version=1, until=LATER, labels={"stable": 2})
    over = replace(baking, now=LATER)
    assert plan(over) == UnloadVersions(versions=(2,), labels={"stable": 2})
    unloaded = with_state(replace(over, server={2: UP}), offered=(2,))
    assert isinstance(plan(unloaded), Nothing), "its directory is kept: it is the last good one"


def test_a_version_that_only_bakes_makes_room_before_a_third_is_loaded() -> None:
    state = AgentState(model="shapes", accepted=accepted(2, 2), last_good=1, baking=Baking(version=1, until=LATER))
    third = replace(
        IN_MEMORY_2,
        state=state,
        labels={"stable": 2},
        desired=release(3, 3),
        on_disk=frozenset({1, 2, 3}),
        verified=frozenset({1, 2, 3}),
    )
    room = plan(third)
    assert room == UnloadVersions(versions=(2,), labels={"stable": 2})
    # The server still reports it: it is not asked for twice, and not loaded again either.
    assert plan(replace(third, done=(room,))) == LoadVersions(versions=(2, 3), awaited=(3,), labels={"stable": 2})


def test_a_rollback_within_the_bake_time_pulls_and_loads_nothing() -> None:
    state = AgentState(model="shapes", accepted=accepted(2, 2), last_good=1, baking=Baking(version=1, until=LATER))
    back = replace(IN_MEMORY_2, state=state, labels={"stable": 2}, desired=release(3, 1))
    assert plan(back) == ProbeVersion(1)
    assert plan(replace(back, proved=frozenset({1}))) == MoveLabels(versions=(1, 2), labels={"stable": 1})


def test_a_release_that_failed_is_left_alone_until_its_time_comes() -> None:
    failed = with_state(HAS_2, failure=failure(2, 2))
    failed = replace(failed, server={1: UP, 2: VersionState.END})
    assert plan(failed) == Acknowledge(2, release(2, 2).sha256, "failed", "load", "it broke")
    told = with_state(failed, said=said(2, 1, outcome="failed", cause="load"))
    assert isinstance(plan(told), Nothing)
    assert plan(replace(told, now=LATER)) == LoadVersions(versions=(1, 2), awaited=(2,), labels={"stable": 1})


def test_a_failed_version_is_taken_out_of_the_configuration_again() -> None:
    failed = with_state(replace(HAS_2, server={1: UP, 2: VersionState.END}), failure=failure(2, 2), offered=(1, 2))
    assert plan(failed) == UnloadVersions(versions=(1,), labels={"stable": 1})


def test_a_newer_release_is_not_held_back_by_the_failure_of_the_one_before() -> None:
    newer = with_state(TO_2, failure=failure(2, 2))
    assert plan(replace(newer, desired=release(3, 3))) == PullVersion(3)


def test_a_label_that_moved_although_the_release_failed_goes_back() -> None:
    failed = with_state(IN_MEMORY_2, failure=failure(2, None, cause="labels"))
    failed = replace(failed, labels={"stable": 2})
    assert plan(failed) == ProbeVersion(1)
    assert plan(replace(failed, proved=frozenset({1}))) == MoveLabels(versions=(1, 2), labels={"stable": 1})


def test_a_restarted_server_without_models_gets_what_was_accepted() -> None:
    empty = replace(SERVING_1, server={}, labels={})
    assert plan(empty) == LoadVersions(versions=(1,), awaited=(1,), labels={})
    assert plan(replace(empty, server={1: UP})) == ProbeVersion(1)
    away = replace(empty, desired=None, is_bucket_reachable=False)
    assert plan(away) == LoadVersions(versions=(1,), awaited=(1,), labels={}), "the bucket is not needed for it"


def test_an_accepted_version_that_no_longer_loads_gives_way_to_the_last_good_one() -> None:
    state = AgentState(model="shapes", accepted=accepted(2, 2), last_good=1, failure=failure(2, 2), offered=(2,))
    broken = replace(HAS_2, state=state, server={2: VersionState.END}, labels={})
    assert plan(broken) == LoadVersions(versions=(1,), awaited=(1,), labels={})
    moved = replace(broken, server={1: UP}, labels={"stable": 1})
    assert plan(moved) == RecordServing(2, release(2, 2).sha256, {"stable": 1}, is_fallback=True)


def test_a_withdrawn_version_gives_way_although_it_answers() -> None:
    state = AgentState(
        model="shapes",
        accepted=accepted(2, 2),
        last_good=1,
        withdrawal=Withdrawal(release=2, version=2, reason="users complain"),
        offered=(1, 2),
    )
    withdrawn = replace(IN_MEMORY_2, state=state, labels={"stable": 2}, desired=None, is_bucket_reachable=False)
    assert plan(withdrawn) == ProbeVersion(1)
    assert plan(replace(withdrawn, proved=frozenset({1}))) == MoveLabels(versions=(1, 2), labels={"stable": 1})
    known = replace(withdrawn, desired=release(2, 2), proved=frozenset({1}))
    assert isinstance(plan(known), MoveLabels), "the release does not come back with the bucket"
    assert isinstance(plan(replace(known, desired=release(3, 2))), RecordServing), "a newer one that names it does"


def test_a_version_that_failed_its_golden_examples_is_not_proved_again_in_the_same_breath() -> None:
    state = AgentState(model="shapes", accepted=accepted(1, 1), failure=failure(1, 1, cause="golden"), offered=(1,))
    unproved = replace(SERVING_1, state=state, labels={})
    assert not isinstance(plan(unproved), ProbeVersion | MoveLabels)


def test_an_unverified_directory_is_never_loaded() -> None:
    damaged = replace(SERVING_1, server={}, labels={}, verified=frozenset())
    assert plan(damaged) == PullVersion(1)
    blocked = replace(damaged, blocked=frozenset({1}))
    assert not isinstance(plan(blocked), LoadVersions)


def test_a_damaged_directory_of_a_version_in_memory_does_not_end_its_service() -> None:
    damaged = replace(SERVING_1, verified=frozenset(), blocked=frozenset({1}), is_bucket_reachable=False)
    assert isinstance(plan(damaged), Nothing)


def test_a_start_up_file_with_unverified_versions_is_rewritten_before_anything_else() -> None:
    assert plan(replace(TO_2, is_config_safe=False)) == WriteConfig()


def test_a_start_up_file_that_is_not_what_was_accepted_is_rewritten() -> None:
    assert plan(replace(SERVING_1, is_config_current=False)) == WriteConfig()


def test_a_server_that_cannot_be_reached_is_said_and_versions_are_still_pulled() -> None:
    trouble = Trouble(cause="server", outcome="failed", detail="it cannot be reached")
    down = replace(TO_2, server=None, labels={}, trouble=trouble)
    assert plan(down) == PullVersion(2)
    pulled = replace(down, verified=frozenset({1, 2}), on_disk=frozenset({1, 2}))
    assert plan(pulled) == Acknowledge(2, release(2, 2).sha256, "failed", "server", "it cannot be reached")


def test_metadata_that_is_refused_is_said_about_the_release_that_is_served() -> None:
    trouble = Trouble(cause="trust", outcome="refused", detail="expired")
    refused = replace(SERVING_1, desired=None, trouble=trouble)
    assert plan(refused) == Acknowledge(1, accepted(1, 1).release_sha256, "refused", "trust", "expired")
    told = with_state(refused, said=said(1, 1, outcome="refused", cause="trust"))
    assert plan(told) == Nothing(reason="stable = version 1 is served")


def test_an_outcome_is_acknowledged_once_and_a_changed_one_again() -> None:
    untold = with_state(SERVING_1, said=None)
    assert plan(untold) == Acknowledge(1, release(1, 1).sha256, "serving", "", "Serves stable = version 1.")
    again = with_state(SERVING_1, said=said(1, 1, outcome="failed", cause="server"))
    assert isinstance(plan(again), Acknowledge)
    assert isinstance(plan(replace(untold, is_bucket_reachable=False)), Nothing)


def test_without_a_release_a_foreign_server_is_left_as_it_is() -> None:
    foreign = Situation(now=NOW, state=AgentState(model="shapes"), server={7: UP}, labels={"stable": 7})
    assert plan(foreign) == Nothing(reason="no release to serve")


def test_the_first_release_keeps_a_foreign_version_until_it_is_accepted() -> None:
    foreign = Situation(
        now=NOW,
        state=AgentState(model="shapes"),
        desired=release(1, 1),
        server={7: UP},
        labels={"stable": 7},
        on_disk=frozenset({1}),
        verified=frozenset({1}),
    )
    assert plan(foreign) == LoadVersions(versions=(1, 7), awaited=(1,), labels={"stable": 7})


def test_a_first_release_that_fails_leaves_an_empty_server() -> None:
    state = AgentState(model="shapes", failure=failure(1, 1), offered=(1,))
    failed = replace(SERVING_1, state=state, server={1: VersionState.END}, labels={})
    assert plan(failed) == UnloadVersions(versions=(), labels={})


def test_directories_that_nobody_needs_are_removed_and_no_others() -> None:
    state = AgentState(
        model="shapes",
        accepted=accepted(5, 5),
        last_good=4,
        offered=(5,),
        said=said(5, 5),
    )
    settled = replace(
        SERVING_1,
        state=state,
        desired=release(5, 5),
        server={5: UP, 3: VersionState.UNLOADING, 2: VersionState.END},
        labels={"stable": 5},
        on_disk=frozenset({1, 2, 4, 5}),
        verified=frozenset({4, 5}),
        leftovers=("/models/shapes/.incoming-9",),
    )
    assert plan(settled) == RemoveVersions(versions=(1, 2), leftovers=("/models/shapes/.incoming-9",))
    forgetful = with_state(replace(settled, leftovers=()), last_good=None)
    assert isinstance(plan(forgetful), Nothing), "any of them may be the one to return to"


def test_a_damaged_last_good_version_is_mended_while_there_is_time() -> None:
    state = SERVING_1.state.model_copy(update={"last_good": 3})
    damaged = replace(SERVING_1, state=state, on_disk=frozenset({1, 3}))
    assert plan(damaged) == PullVersion(3)


def test_a_release_names_its_labels() -> None:
    assert release_labels(release(1, 1, canary=2)) == {"stable": 1, "canary": 2}


STRICT = Rules(is_memory_checked=True, is_latency_compared=True)
BESIDE, SWAP = RoomVerdict("beside", "Enough."), RoomVerdict("swap", "Short.")
WAIT = Turn("wait", "host-1 has not acknowledged release 2")


def test_memory_is_checked_before_a_load_and_latency_before_a_label_moves() -> None:
    strict = replace(HAS_2, rules=STRICT)
    check = CheckMemory(versions=(2,), outgoing=(1,))
    assert plan(strict) == check
    assert plan(replace(strict, room=BESIDE, done=(check,))) == LoadVersions((1, 2), (2,), {"stable": 1})
    assert not isinstance(plan(replace(strict, done=(check,))), LoadVersions), "it said no"
    proved = replace(IN_MEMORY_2, rules=STRICT, proved=frozenset({2}))
    assert plan(proved) == MeasureLatency(2, served=1)
    assert plan(replace(proved, timed=frozenset({2}))) == MoveLabels(versions=(1, 2), labels={"stable": 2})


def test_a_swap_is_announced_once_unloads_then_loads_and_asks_no_more() -> None:
    short = replace(HAS_2, rules=STRICT, room=SWAP, done=(CheckMemory(versions=(2,), outgoing=(1,)),))
    announce = plan(short)
    assert announce == AnnounceSwap(2, accepted(1, 1).release_sha256, (2,), (1,), "Short.", is_bucket_reachable=True)
    announced = with_state(short, announced_swap=2)
    swap = SwapOut(versions=(), labels={}, outgoing=(1,))
    assert plan(announced) == plan(replace(short, done=(*short.done, announce))) == swap
    emptied = replace(announced, server={1: VersionState.END}, labels={}, done=(*short.done, swap))
    assert plan(emptied) == LoadVersions(versions=(2,), awaited=(2,), labels={})


def test_a_swap_that_was_killed_in_the_middle_goes_on_or_comes_back() -> None:
    emptied = replace(HAS_2, rules=STRICT, server={1: VersionState.END}, labels={})
    assert plan(emptied) == CheckMemory(versions=(2,), outgoing=())
    failed = with_state(emptied, failure=failure(2, 2), offered=(2,))
    assert plan(failed) == LoadVersions(versions=(1,), awaited=(1,), labels={}), "what was accepted is asked nothing"


def test_a_host_whose_turn_it_is_not_prepares_and_moves_nothing() -> None:
    waiting = replace(TO_2, rules=STRICT, turn=WAIT)
    assert plan(waiting) == PullVersion(2)
    ready = replace(IN_MEMORY_2, rules=STRICT, turn=WAIT, proved=frozenset({2}), timed=frozenset({2}))
    assert plan(ready) == WaitForHosts(reason=WAIT.reason, labels={"stable": 2})
    later = replace(ready, proved=frozenset(), timed=frozenset(), prepared=frozenset({2}))
    assert plan(later) == WaitForHosts(reason=WAIT.reason, labels={"stable": 2})
    assert plan(replace(later, turn=Turn("go"))) == ProbeVersion(2), "once more before it moves"
    short = replace(HAS_2, rules=STRICT, turn=WAIT, room=SWAP, done=(CheckMemory(versions=(2,), outgoing=(1,)),))
    assert isinstance(plan(short), WaitForHosts), "a swap is no preparation"


@pytest.mark.parametrize("word", ["stop", "late"])
def test_a_host_that_must_not_go_on_keeps_what_it_has_and_says_so(word: str) -> None:
    stopped = replace(IN_MEMORY_2, turn=Turn(word, "host-1 could not"))
    stopped = with_state(stopped, offered=(1, 2))
    assert plan(stopped) == UnloadVersions(versions=(1,), labels={"stable": 1})
    unloaded = with_state(replace(stopped, server={1: UP}), offered=(1,))
    assert plan(unloaded) == Acknowledge(
        2, release(2, 2).sha256, "refused", "order", "Host-1 could not; this host keeps stable = version 1."
    )


def test_a_withdrawn_canary_gives_its_label_to_the_stable_version() -> None:
    state = AgentState(
        model="shapes",
        accepted=accepted(2, 1, canary=2),
        withdrawal=Withdrawal(release=2, version=2, reason="errors", cause="traffic", label="canary"),
        offered=(1, 2),
    )
    labels = {"stable": 1, "canary": 2}
    withdrawn = replace(IN_MEMORY_2, state=state, labels=labels, desired=release(2, 1, canary=2), proved=frozenset({1}))
    assert plan(withdrawn) == MoveLabels(versions=(1, 2), labels={"stable": 1, "canary": 1})
    moved = replace(withdrawn, labels={"stable": 1, "canary": 1})
    assert plan(moved) == RecordServing(
        2, accepted(2, 1, canary=2).release_sha256, {"stable": 1, "canary": 1}, is_fallback=True
    )


def test_nothing_is_removed_while_the_bucket_is_away() -> None:
    state = SERVING_1.state.model_copy(update={"last_good": 3, "said": said(1, 1)})
    spare = replace(SERVING_1, state=state, on_disk=frozenset({1, 2, 3}), verified=frozenset({1, 3}))
    assert plan(spare) == RemoveVersions(versions=(2,))
    assert isinstance(plan(replace(spare, desired=None, is_bucket_reachable=False)), Nothing)


VERSIONS = st.integers(1, 4)
SETS = st.frozensets(VERSIONS)


@st.composite
def situations(draw: st.DrawFn) -> Situation:
    was = draw(st.none() | VERSIONS)
    failed = draw(st.none() | VERSIONS)
    bakes = draw(st.none() | VERSIONS)
    withdrawn = draw(st.none() | VERSIONS)
    state = AgentState(
        model="shapes",
        accepted=accepted(1, was) if was else None,
        last_good=draw(st.none() | VERSIONS),
        baking=Baking(version=bakes, until=draw(st.sampled_from([NOW, LATER]))) if bakes else None,
        failure=failure(draw(st.sampled_from([1, 2])), failed, cause=draw(st.sampled_from(["load", "golden"])))
        if failed
        else None,
        withdrawal=Withdrawal(release=draw(st.sampled_from([1, 2])), version=withdrawn, reason="no")
        if withdrawn
        else None,
        offered=tuple(sorted(draw(SETS))),
    )
    server = draw(st.dictionaries(VERSIONS, st.sampled_from(list(VersionState))))
    available = sorted(version for version, found in server.items() if found is UP)
    labels = {"stable": draw(st.sampled_from(available))} if available and draw(st.booleans()) else {}
    on_disk = draw(SETS)
    wanted = draw(st.none() | VERSIONS)
    return Situation(
        now=NOW,
        state=state,
        desired=release(2, wanted, canary=draw(st.none() | VERSIONS)) if wanted else None,
        server=draw(st.just(server) | st.none()) if not labels else server,
        labels=labels,
        on_disk=on_disk,
        verified=on_disk & draw(SETS),
        proved=frozenset(available) & draw(SETS),
        timed=frozenset(available) & draw(SETS),
        room=draw(st.sampled_from([None, BESIDE, SWAP])),
        turn=draw(st.sampled_from([Turn("go"), WAIT, Turn("stop", "no"), Turn("late", "no")])),
        rules=draw(st.sampled_from([Rules(), STRICT, Rules(is_latency_limited=True)])),
        blocked=draw(SETS),
        is_bucket_reachable=draw(st.booleans()),
    )


@settings(max_examples=soak.rounds(120, soak=4000), deadline=None)
@given(situations())
def test_no_situation_leads_to_a_step_that_endangers_what_is_served(situation: Situation) -> None:
    step = plan(situation)
    available = situation.available
    if isinstance(step, LoadVersions):
        assert set(step.versions) <= situation.verified | available, "a path that was not verified"
        assert set(step.labels.values()) <= available
        assert situation.labels.items() <= step.labels.items(), "a load moves or drops no label"
    if isinstance(step, MoveLabels):
        assert set(step.labels.values()) <= available, "a label points at what answers"
        moved = {version for label, version in step.labels.items() if situation.labels.get(label) != version}
        assert moved <= situation.proved
        assert available <= set(step.versions), "a label move unloads nothing"
        if situation.turn.word != "go" and situation.desired is not None:
            assert dict(step.labels) != release_labels(situation.desired) or situation.state.accepted is not None
    if isinstance(step, SwapOut):
        assert situation.room == SWAP
        assert situation.state.announced_swap is not None, "it was announced"
    if isinstance(step, UnloadVersions):
        assert set(situation.labels.values()) <= set(step.versions), "what a label needs stays"
        assert set(step.versions) <= available
    if isinstance(step, RemoveVersions):
        state = situation.state
        kept = {
            state.last_good,
            *(state.accepted.labels.values() if state.accepted else ()),
            *situation.labels.values(),
        }
        assert not kept & set(step.versions)
        assert not situation.live & set(step.versions)


@settings(max_examples=soak.rounds(60, soak=2000), deadline=None)
@given(situations())
def test_no_step_is_taken_twice_in_one_tick(situation: Situation) -> None:
    done: tuple = ()
    for _ in range(20):
        step = plan(replace(situation, done=done))
        if isinstance(step, Nothing | KeepForBake | WaitForHosts):
            return
        assert step not in done
        done = (*done, step)
    pytest.fail(f"no end: {done}")
