"""Settings of the training site: the table [training].

Its place in the flow: the command line loads the table into `TrainingSettings` and builds requests
for a cluster from it. What is trained and how is not here but in the training's own file (config.py).
"""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


def _operating_system_user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # A container may run under an id that has no name.
        return "unknown"


class TrainingSettings(BaseModel):
    """Where datasets and runs lie, and on which hosts is trained.

    Args:
        runs_dir: the folder with one folder a run.
        data_dir: the dataset that is built and trained from.
        config_path: the training's configuration when none is named.
        inventory: the Ansible inventory with the training hosts; without one, training runs on this machine.
        trained_by: who is written into the run; the gate wants another person as approver.
        cache_dir: where a training on this machine keeps what it streams from s3://; without it nothing is kept.
            The hosts of an inventory have their own: the role's `training_run_cache_dir`.
        cache_gigabytes: the bound on that folder's size, in 10**9 bytes.
        decode_workers: processes that decode photos while a dataset is built; 0 takes one for each core.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    runs_dir: Path = Path("runs")
    data_dir: Path = Path("dataset")
    config_path: Path = Path("training.toml")
    inventory: Path | None = None
    trained_by: Annotated[str, Field(min_length=1, max_length=200)] = Field(default_factory=_operating_system_user)
    cache_dir: Path | None = None
    cache_gigabytes: Annotated[float, Field(gt=0)] = 100.0
    decode_workers: Annotated[int, Field(ge=0, le=1024)] = 0
