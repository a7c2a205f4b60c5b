"""The settings of judging: the table [validation] of liftgate.toml.

Its place in the flow: the command line reads them and composes validate.py's collaborators.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class ValidationSettings(BaseModel):
    """Where the holdout and the policy lie, and how the measuring is done.

    Attributes:
        holdout_dir: the frozen holdout's folder; None refuses to validate.
        policy_path: the policy's TOML file; None refuses to validate.
        batch_size: photos in one request while measuring accuracy.
        latency_sample: photos asked one by one while measuring latency.
        decode_workers: processes that decode photos.
        load_timeout_seconds: how long the throw-away server may take to make a model available.
        may_load_without_isolation: whether to try and to measure candidates where bubblewrap does not work.
        may_approve_own: whether the person who trained a run may approve it.
        approval_days: for how long an approval counts; afterwards its approver has to look again.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    holdout_dir: Path | None = None
    policy_path: Path | None = None
    batch_size: Annotated[int, Field(ge=1, le=1024)] = 64
    latency_sample: Annotated[int, Field(ge=10, le=10_000)] = 200
    decode_workers: Annotated[int, Field(ge=1, le=64)] = 2
    load_timeout_seconds: Annotated[float, Field(gt=0)] = 120.0
    may_load_without_isolation: bool = False
    may_approve_own: bool = False
    approval_days: Annotated[int, Field(ge=1, le=365)] = 30
