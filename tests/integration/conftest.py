"""What several integration tests share: hostile models, built once."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def hostile_kinds(repository: Path) -> ModuleType:
    """The module tests/hostile_models.py."""
    name = "hostile_models"
    if name not in sys.modules:
        specification = importlib.util.spec_from_file_location(name, repository / f"tests/{name}.py")
        assert specification is not None
        assert specification.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(sys.modules[name])
    return sys.modules[name]


@pytest.fixture(scope="session")
def hostile_models(hostile_kinds: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with one export a kind; the workers of one run share it."""
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    directory: Path = hostile_kinds.hostile_models(shared)
    return directory
