"""What several integration tests share: hostile models, built once."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def hostile_models(hostile_kinds: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with one export a kind; the workers of one run share it."""
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    directory: Path = hostile_kinds.hostile_models(shared)
    return directory
