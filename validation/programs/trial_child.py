"""`python -m validation.programs.trial_child DIRECTORY`: load one export and ask it about a few pictures.

Its place in the flow: the program that trial.py runs behind the walls of isolation.py; no other process of a trial
touches the model. It reads the TrialJob in the directory and writes lines of JSON to ANSWER_FD: {"stage": …} before
each step, {"refused": …} or {"call": …} for what ends the trial, {"done": true} last.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artifact_sync.records import GoldenExamples, InputContract
from serving.embedded_server.session import Session, load_session
from serving.embedded_server.status import StatusError
from serving.embedded_server.tensorflow_library import tensorflow_library
from serving.golden import golden_photos
from validation.programs.isolated_child import ANSWER_FD
from validation.programs.system_calls import PREDICT, put_on, tell_of_refused_calls
from validation.programs.trial_job import READY, TrialJob

_BATCHES = (1, 2, 8)
_SEED = 20_261_120
_ALONE = 3
_SAID_CHARACTERS = 500
_SAME_SCORE = 0.01
"""Sums in another order change a score by far less than this."""


class _RefusedByTrialError(Exception):
    """The model does not do what its contract says; the message is a half-sentence about it."""


def main(arguments: Sequence[str]) -> int:
    """Carry out the job and return 0 where the model did all that was asked."""
    job = TrialJob.read(Path(arguments[0]))
    tensorflow_library()
    tell_of_refused_calls(lambda call: _tell(call=call))
    put_on(PREDICT)
    _tell(stage=READY)
    try:
        _try(job)
    except StatusError as error:
        # What follows the first line is about TensorFlow's insides.
        _tell(refused=f"TensorFlow says {str(error).splitlines()[0][:_SAID_CHARACTERS]}")
        return 1
    except _RefusedByTrialError as error:
        _tell(refused=str(error))
        return 1
    _tell(done=True)
    return 0


def _try(job: TrialJob) -> None:
    _tell(stage="while it was loaded")
    session = load_session(job.export, tags=("serve",), intra_op_threads=1, inter_op_threads=1)
    asked = _Model(session, contract=job.contract, classes=job.classes)
    has_finite = False
    for name, pictures in _pictures(job.contract, job.golden):
        for size in _BATCHES:
            batch = np.resize(pictures, (size, *pictures.shape[1:])) if len(pictures) < size else pictures[:size]
            _tell(stage=f"while it answered {size} picture{'' if size == 1 else 's'} ({name})")
            together = asked.scores(batch)
            has_finite |= bool(np.isfinite(together).all(axis=1).any())
        for index in range(min(_ALONE, len(batch))):
            _check_same(asked.scores(batch[index : index + 1])[0], together[index], name=name)
    if not has_finite:
        raise _RefusedByTrialError("none of its answers is a number (NaN or infinite scores throughout)")


class _Model:
    """A loaded export, asked as its contract says."""

    def __init__(self, session: Session, *, contract: InputContract, classes: int) -> None:
        signature = session.signature_defs.get(contract.signature_name)
        if signature is None:
            raise _RefusedByTrialError(f"there is no signature {contract.signature_name!r}")
        if sorted(signature.inputs) != [contract.input_name]:
            raise _RefusedByTrialError(f"its signature takes {sorted(signature.inputs)}, not {contract.input_name!r}")
        if contract.scores_name not in signature.outputs:
            raise _RefusedByTrialError(f"its signature does not give {contract.scores_name!r}")
        self._session = session
        self._classes = classes
        self._feed = signature.inputs[contract.input_name].name
        others = sorted(set(signature.outputs) - {contract.scores_name})
        # All of them: a server computes whatever a client asks for.
        self._fetches = [signature.outputs[name].name for name in (contract.scores_name, *others)]

    def scores(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        answer: NDArray[Any] = self._session.run({self._feed: pixels}, self._fetches, timeout_seconds=None)[0]
        if answer.dtype != np.float32 or answer.shape != (len(pixels), self._classes):
            raise _RefusedByTrialError(
                f"it answers {len(pixels)} pictures with {answer.dtype} {list(answer.shape)} instead of float32 "
                f"[{len(pixels)}, {self._classes}]"
            )
        return answer


def _pictures(contract: InputContract, golden: GoldenExamples | None) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    shape = (max(_BATCHES), contract.height, contract.width, contract.channels)
    yield "black", np.zeros(shape, np.uint8)
    yield "noise", np.random.default_rng(_SEED).integers(0, 256, shape, dtype=np.uint8)
    if golden is not None:
        yield "golden examples", np.stack(golden_photos(golden)[: max(_BATCHES)])


def _check_same(alone: NDArray[np.float32], among_others: NDArray[np.float32], *, name: str) -> None:
    """Refuse a model that could show its good side to the gate, which asks in batches, and another to users."""
    if not np.allclose(alone, among_others, rtol=0, atol=_SAME_SCORE, equal_nan=True):
        difference = float(np.abs(alone - among_others).max())
        raise _RefusedByTrialError(
            f"it answers a picture ({name}) otherwise alone than among others: scores differ by {difference:.3g}"
        )


def _tell(**what: Any) -> None:
    os.write(ANSWER_FD, (json.dumps(what) + "\n").encode())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
