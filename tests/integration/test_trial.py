"""Hostile SavedModels that nobody scanned, tried behind the walls: what they do is named, and nothing is left of it."""

from __future__ import annotations

import base64
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from artifact_sync.clock import SystemClock
from artifact_sync.errors import ModelServerError, RefusedError
from artifact_sync.records import GoldenExample, GoldenExamples, InputContract
from validation.evaluate import is_constant
from validation.programs.isolated_child import ProcessLimits
from validation.programs.isolation import Isolation, find_isolation
from validation.programs.smoke import throwaway_server
from validation.programs.trial import trial

CONTRACT = InputContract(height=4, width=4, channels=3)
# Of the memory TensorFlow's library and Python take 370 MiB.
LIMITS = ProcessLimits(wall_seconds=60, cpu_seconds=30, memory_bytes=640 << 20, address_bytes=6 << 30)

REFUSED = {
    "answers_infinity": r"none of its answers is a number",
    "answers_nan": r"none of its answers is a number",
    "answers_otherwise_in_batches": r"it answers a picture \(noise\) otherwise alone than among others",
    "caches_to_a_file": r"it wrote files: '/tmp/liftgate-was-here",
    "calls_itself": r"it crashed with SIGSEGV while it was loaded",
    "draws_lots": r"otherwise alone than among others",
    "fills_the_memory": r"it took more than 640 MiB of memory while it answered 1 picture \(black\)",
    "fills_the_memory_by_broadcasting": r"it took more than 640 MiB",
    "fills_the_memory_by_padding": r"it took more than 640 MiB",
    "fills_the_memory_by_tiles": r"it took more than 640 MiB",
    "gives_another_name": r"its signature does not give 'probabilities'",
    "has_cut_index": r"TensorFlow says DATA_LOSS: .*while it was loaded",
    "has_cut_variables": r"TensorFlow says OUT_OF_RANGE: .*while it was loaded",
    "has_nan_weights": r"none of its answers is a number",
    "has_swapped_variables": r"TensorFlow says NOT_FOUND: Key more/.* not found in checkpoint",
    "is_no_protobuf": r"TensorFlow says DATA_LOSS: .* as binary proto",
    "lacks_variables": r"TensorFlow says NOT_FOUND: .*No such file or directory",
    "lies_about_its_answer": r"answers 1 pictures with float32 \[1, 3\] instead of float32 \[1, 2\]",
    "never_ends": r"it took more than 640 MiB|it computed for more than 30 s|it was not done after",
    "prints_to_a_file": r"it wrote files: '/tmp/liftgate-was-here'",
    "reads_a_file": r"TensorFlow says NOT_FOUND: /etc/passwd; No such file or directory",
    "reads_a_whole_file": r"NOT_FOUND: /etc/passwd",
    "reads_from_the_network": r"it tried to open a network connection \(system call socket\)",
    "reads_in_a_loop_body": r"NOT_FOUND: /etc/passwd",
    "reads_lines": r"NOT_FOUND: /etc/passwd",
    "reads_records": r"NOT_FOUND: /etc/passwd",
    "restores_another_checkpoint": r"Failed to find any matching files for /srv/other/variables",
    "restores_from_elsewhere": r"Failed to find any matching files for /srv/other/variables",
    "runs_numpy": r"No OpKernel was registered to support Op 'PyFunc'",
    "runs_python": r"No OpKernel was registered to support Op 'EagerPyFunc'",
    "saves_a_checkpoint": r"it wrote files: '/tmp/liftgate-was-here",
    "takes_floats": r"INVALID_ARGUMENT: Expects arg\[0\] to be float but uint8 is provided",
    "unfolds_to_millions_of_nodes": r"it took more than 640 MiB of memory while it was loaded",
    "writes_a_file": r"it wrote files: '/tmp/liftgate-was-here'",
    "writes_a_summary": r"it wrote files: '/tmp/liftgate-was-here",
    "writes_at_initialisation_of_old": r"it wrote files: '/tmp/liftgate-was-here'",
}


@pytest.fixture(scope="module")
def isolation() -> Isolation:
    try:
        return find_isolation()
    except RefusedError as error:
        pytest.skip(str(error))


@pytest.fixture
def own_place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the trial's files lie, so that they and its processes can be told from others; a short path."""
    with tempfile.TemporaryDirectory(prefix="own-") as directory:
        monkeypatch.setattr(tempfile, "tempdir", directory)
        yield Path(directory)
        monkeypatch.undo()


def processes_of(place: Path) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(place) in line:
            found.append(line)
    return found


def left_behind(place: Path, kinds: ModuleType) -> list[str]:
    return [*(str(path) for path in Path(kinds.MARK).parent.glob("liftgate-was-here*")), *map(str, place.iterdir())]


def golden_examples() -> GoldenExamples:
    """Eight pictures and what the honest model answers to them."""
    pictures = np.random.default_rng(3).integers(0, 256, (8, 4, 4, 3), dtype=np.uint8)
    means = pictures.astype(np.float64).mean(axis=(1, 2)) / 255
    logits = means @ np.array([[1.0, 0.5]] * 3)
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    examples = tuple(
        GoldenExample(pixels_base64=base64.b64encode(picture.tobytes()).decode(), scores=tuple(map(float, row)))
        for picture, row in zip(pictures, scores, strict=True)
    )
    return GoldenExamples(height=4, width=4, channels=3, tolerance=0.001, examples=examples)


def test_an_honest_classifier_stands_its_trial(
    hostile_models: Path, hostile_kinds: ModuleType, isolation: Isolation, own_place: Path
) -> None:
    record = trial(
        hostile_models / "honest",
        contract=CONTRACT,
        classes=2,
        golden=golden_examples(),
        isolation=isolation,
        limits=LIMITS,
    )
    assert record.isolation.startswith("bubblewrap, as ")
    assert "without a network" in record.isolation
    assert 0 < record.cpu_seconds < 30
    assert 100 << 20 < record.memory_bytes < 640 << 20
    assert processes_of(own_place) == left_behind(own_place, hostile_kinds) == []


@pytest.mark.parametrize("kind", sorted(REFUSED))
def test_what_a_model_does_is_named_and_nothing_is_left_of_it(
    hostile_models: Path, hostile_kinds: ModuleType, isolation: Isolation, own_place: Path, kind: str
) -> None:
    started = time.monotonic()
    with pytest.raises(RefusedError, match=REFUSED[kind]) as refused:
        trial(hostile_models / kind, contract=CONTRACT, classes=2, golden=None, isolation=isolation, limits=LIMITS)
    assert "did not stand its trial" in str(refused.value)
    assert time.monotonic() - started < 90
    assert processes_of(own_place) == left_behind(own_place, hostile_kinds) == []


def test_a_model_that_computes_for_hours_is_stopped(
    hostile_models: Path, isolation: Isolation, own_place: Path
) -> None:
    def refusal(limits: ProcessLimits) -> str:
        with pytest.raises(RefusedError) as refused:
            trial(
                hostile_models / "computes_for_hours",
                contract=CONTRACT,
                classes=2,
                golden=None,
                isolation=isolation,
                limits=limits,
            )
        return str(refused.value)

    roomy = {"memory_bytes": 1024 << 20, "address_bytes": 6 << 30}
    assert "it was not done after 4 s; it was stopped while it" in refusal(ProcessLimits(wall_seconds=4, **roomy))
    text = refusal(ProcessLimits(wall_seconds=60, cpu_seconds=3, **roomy))
    assert "it computed for more than 3 s; it was stopped while it" in text
    assert processes_of(own_place) == []


@pytest.mark.parametrize("kind", ["lists_files", "reads_in_a_branch", "reads_in_a_second_signature", "has_a_link"])
def test_a_model_that_finds_nothing_to_read_does_no_harm(
    hostile_models: Path, hostile_kinds: ModuleType, isolation: Isolation, own_place: Path, kind: str
) -> None:
    trial(hostile_models / kind, contract=CONTRACT, classes=2, golden=None, isolation=isolation, limits=LIMITS)
    assert processes_of(own_place) == left_behind(own_place, hostile_kinds) == []


def test_a_pipe_among_the_files_does_not_hold_the_trial_up(
    hostile_models: Path, isolation: Isolation, tmp_path: Path
) -> None:
    import os
    import shutil

    shutil.copytree(hostile_models / "honest", tmp_path / "export")
    os.mkfifo(tmp_path / "export/variables/pipe")
    with pytest.raises(RefusedError, match="cannot be copied"):
        trial(tmp_path / "export", contract=CONTRACT, classes=2, golden=None, isolation=isolation, limits=LIMITS)


def test_a_machine_that_cannot_try_anything_does_not_blame_the_candidate(
    hostile_models: Path, isolation: Isolation
) -> None:
    no_room = ProcessLimits(memory_bytes=8 << 20, address_bytes=0)
    with pytest.raises(ModelServerError, match="The trial of the candidate does not start"):
        trial(hostile_models / "honest", contract=CONTRACT, classes=2, golden=None, isolation=isolation, limits=no_room)


def test_without_walls_the_limits_and_the_filter_still_hold(
    hostile_models: Path, hostile_kinds: ModuleType, own_place: Path
) -> None:
    bare = Isolation(bubblewrap=None, words="no isolation")
    record = trial(hostile_models / "honest", contract=CONTRACT, classes=2, golden=None, isolation=bare, limits=LIMITS)
    assert record.isolation == "no isolation"
    for kind in ("reads_from_the_network", "fills_the_memory_by_tiles"):
        with pytest.raises(RefusedError, match=REFUSED[kind]):
            trial(hostile_models / kind, contract=CONTRACT, classes=2, golden=None, isolation=bare, limits=LIMITS)
    assert processes_of(own_place) == left_behind(own_place, hostile_kinds) == []


def test_the_throwaway_server_answers_from_behind_the_walls_and_says_what_it_holds(
    hostile_models: Path, hostile_kinds: ModuleType, isolation: Isolation, own_place: Path
) -> None:
    pictures = np.random.default_rng(1).integers(0, 256, (8, 4, 4, 3), dtype=np.uint8)
    with throwaway_server(load_timeout_seconds=60, clock=SystemClock(), isolation=isolation) as smoke:
        smoke.load("champion", hostile_models / "honest")
        assert smoke.load("candidate", hostile_models / "answers_always_the_same") > 0
        assert not is_constant(smoke.server.predict("champion", pictures).scores)
        # Neither scan nor trial minds a model that looks at nothing; the gate does.
        assert is_constant(smoke.server.predict("candidate", pictures).scores)
        peak_bytes = smoke.peak_memory_bytes()
        assert peak_bytes is not None
        assert 50 << 20 < peak_bytes < 2 << 30
        # A model that nobody scanned still finds no network and no files.
        smoke.load("reader", hostile_models / "reads_a_file")
        with pytest.raises(ModelServerError, match="/etc/passwd; No such file or directory"):
            smoke.server.predict("reader", pictures)
        smoke.load("caller", hostile_models / "reads_from_the_network")
        with pytest.raises(ModelServerError):
            smoke.server.predict("caller", pictures)
    deadline = time.monotonic() + 10
    while processes_of(own_place) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes_of(own_place) == left_behind(own_place, hostile_kinds) == []
