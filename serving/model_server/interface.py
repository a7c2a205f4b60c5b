"""What a model server is asked and what it answers, free of gRPC.

Its place in the flow: implemented by GrpcModelServer; the agent, the gate and the front end depend
on this alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import PurePath
from typing import Protocol

import numpy as np
import numpy.typing as npt

from artifact_sync.errors import InputError, ModelServerError

PREDICT_TIMEOUT_SECONDS = 10.0
"""How long one prediction may take unless the caller says otherwise."""


class VersionMissingError(ModelServerError):
    """The server answers, and has no such model, version or label at this moment."""


class VersionState(Enum):
    """Where a version is in its life, with TensorFlow Serving's numbers."""

    UNKNOWN = 0
    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


@dataclass(frozen=True)
class VersionStatus:
    """One version as the server sees it; `error_message` is empty unless it ended by an error."""

    version: int
    state: VersionState
    error_message: str = ""


@dataclass(frozen=True)
class ModelConfig:
    """One model that a server shall hold: exactly these versions, and labels that point at them.

    Args:
        name: what requests call it.
        base_path: absolute path of the directory with one integer directory a version.
        versions: every version to hold in memory, each once.
        labels: label → version. A label can point only at a version that is AVAILABLE already:
            load in one reload, move the label in the next.

    Raises:
        InputError: no version, a version twice, a label to another version, or a relative path.
    """

    name: str
    base_path: str
    versions: tuple[int, ...]
    labels: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        refused = f"Configuration of model {self.name!r} refused: "
        if not self.name or not PurePath(self.base_path).is_absolute():
            raise InputError(f"{refused}it needs a name and an absolute base path, found {self.base_path!r}.")
        if not self.versions or len(set(self.versions)) != len(self.versions) or min(self.versions) < 0:
            raise InputError(f"{refused}versions must be there, each once, not negative; found {self.versions}.")
        strays = {label: version for label, version in self.labels.items() if version not in self.versions}
        if strays:
            raise InputError(f"{refused}labels {strays} point outside the versions {self.versions}.")


@dataclass(frozen=True, eq=False)
class Prediction:
    """Scores float32 [batch, classes], and the version that really answered."""

    scores: npt.NDArray[np.float32]
    version: int


@dataclass(frozen=True)
class TensorSignature:
    """A tensor's dtype by NumPy's name ("uint8") and its shape; None stands for "any"."""

    dtype: str
    shape: tuple[int | None, ...] | None


@dataclass(frozen=True)
class ModelSignature:
    """What a loaded version takes and gives, by tensor name."""

    version: int
    inputs: Mapping[str, TensorSignature]
    outputs: Mapping[str, TensorSignature]


class ModelServer(Protocol):
    """What the rest of Liftgate asks of a model server.

    Every method raises ModelServerUnavailableError when the server cannot be reached or does not
    answer in time, and ModelServerError when it answers with a refusal (VersionMissingError where
    what was asked for is not loaded). All are safe to call from several threads.
    """

    def predict(
        self,
        model: str,
        pixels: npt.NDArray[np.uint8],
        *,
        version: int | None = None,
        label: str | None = None,
        timeout_seconds: float = PREDICT_TIMEOUT_SECONDS,
    ) -> Prediction:
        """Return scores for uint8 pixels [batch, height, width, channels].

        Without version and label the newest available version answers; giving both is an InputError.
        """
        ...

    def status(self, model: str) -> tuple[VersionStatus, ...]:
        """Return every version the server knows of, newest first; empty for a model it does not know."""
        ...

    def signature(self, model: str, *, version: int | None = None, label: str | None = None) -> ModelSignature:
        """Return what a loaded version takes and gives."""
        ...

    def reload(self, configs: tuple[ModelConfig, ...], *, timeout_seconds: float) -> None:
        """Replace the server's whole configuration; new versions of known models load after this returns."""
        ...
