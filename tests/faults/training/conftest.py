"""Real digits as a dataset, and a quick training of them."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture(scope="session")
def training_lab(repository: Path) -> ModuleType:
    """The module tests/training_lab.py."""
    spec = importlib.util.spec_from_file_location("training_lab", repository / "tests" / "training_lab.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # dataclasses look their module up by name.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def digits_dir(training_lab: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset folder with scikit-learn's digits."""
    directory: Path = tmp_path_factory.mktemp("digits") / "dataset"
    training_lab.write_digits(directory)
    return directory


@pytest.fixture
def training(training_lab: ModuleType, digits_dir: Path, tmp_path: Path) -> Any:
    """A quick training of the digits, into runs of its own."""
    config_path = tmp_path / "training.toml"
    config_path.write_text(training_lab.QUICK)
    return training_lab.Training(digits_dir, config_path, tmp_path / "runs")
