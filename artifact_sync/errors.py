"""Every error that Liftgate raises on purpose, and the exit code that a command ends with for each.

Its place in the flow: seams translate foreign errors into these once; the command line catches
`LiftgateError` at its edge, prints the text on stderr and exits with `exit_code`.

    LiftgateError                     1
    ├── SettingsError                 2   a setting or an argument is wrong
    ├── RefusedError                  3   a rule of the flow says no
    │   └── BudgetSpentError          3   the holdout may not decide any more
    ├── NotFoundError                 4   a named thing does not exist
    ├── IntegrityError                5   bytes are not what their digest says
    ├── TrustError                    6   not signed as it must be, too old, or expired
    │   └── ExpiredError              6   rightly signed, but nobody renewed it in time
    ├── LostRaceError                 7   somebody else created it first
    │   └── AlreadyExistsError        7
    ├── StoreError                    8   the bucket cannot be used now
    ├── InputError                    9   data handed in cannot be used
    │   ├── RecordError               9   a record that is malformed or of an unknown schema
    │   └── PhotoError                9   a photo that is refused
    ├── ModelServerError             10   the model server does not do what was asked
    │   └── ModelServerUnavailableError  10   not reached, or no answer in time
    ├── TrainingError                11   training failed
    │   └── PreflightError           11   a host is not fit to train
    └── CapacityError                12   not enough disk, memory or descriptors to do it safely

A message says what is refused, what was found, and what to do.
"""

from __future__ import annotations

from typing import ClassVar


class LiftgateError(Exception):
    """The root of all errors that Liftgate raises on purpose."""

    exit_code: ClassVar[int] = 1


class SettingsError(LiftgateError):
    """A setting, an environment variable or an argument is missing, unknown or out of range."""

    exit_code = 2


class RefusedError(LiftgateError):
    """A rule of the flow refuses the act; repeating it unchanged will be refused again."""

    exit_code = 3


class BudgetSpentError(RefusedError):
    """The holdout's error budget is used up: only new photos can decide."""


class NotFoundError(LiftgateError):
    """A thing that was named does not exist."""

    exit_code = 4


class IntegrityError(LiftgateError):
    """Bytes are not what their manifest or digest says."""

    exit_code = 5


class TrustError(LiftgateError):
    """Metadata is unsigned, signed by the wrong keys, older than what was seen, or expired."""

    exit_code = 6


class ExpiredError(TrustError):
    """Metadata is rightly signed and has expired: what is served may stay, nothing new may be taken."""


class LostRaceError(LiftgateError):
    """Somebody else did it first; look again before deciding anew."""

    exit_code = 7


class AlreadyExistsError(LostRaceError):
    """A create-only key exists already."""


class StoreError(LiftgateError):
    """The object store cannot be reached, refuses the credentials, or cannot be trusted with conditional writes."""

    exit_code = 8


class InputError(LiftgateError):
    """Data that was handed in cannot be used."""

    exit_code = 9


class RecordError(InputError):
    """A record is malformed, not canonical, or of a schema that this release does not know."""


class PhotoError(InputError):
    """A photo is refused; `reason` is a short stable word for programs.

    Reasons: not-an-image, format-not-allowed, too-many-bytes, too-many-pixels, too-many-scans,
    too-many-frames, truncated, decode-limit, decode-failed, metadata-not-removable, busy.
    """

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class ModelServerError(LiftgateError):
    """The model server cannot be reached or does not do what was asked of it."""

    exit_code = 10


class ModelServerUnavailableError(ModelServerError):
    """The model server cannot be reached or did not answer in time; asking again later may help."""


class TrainingError(LiftgateError):
    """Training did not produce a candidate."""

    exit_code = 11


class PreflightError(TrainingError):
    """A host is not fit to train; the message lists every failure of every host."""


class CapacityError(LiftgateError):
    """Doing it would run out of disk, memory or descriptors, so it was not begun."""

    exit_code = 12
