"""The signed site, for tests of trust, approval and promotion."""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest


def _load(name: str) -> ModuleType:
    """Load tests/<name>.py: with importmode=importlib the tests folder is on no path."""
    if name not in sys.modules:
        path = Path(__file__).parent.parent / f"{name}.py"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


SignedSite = _load("signed_site").SignedSite


@pytest.fixture
def memory_path() -> Iterator[Path]:
    """A directory where nothing waits for a disk: these tests are about order and signatures."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as directory:
        yield Path(directory)


@pytest.fixture
def site(memory_path: Path) -> SignedSite:
    """A site where one of alice and bob must approve, with nothing released."""
    return SignedSite(memory_path).initialise()


@pytest.fixture
def strict_site(memory_path: Path) -> SignedSite:
    """A site where both alice and bob must approve."""
    return SignedSite(memory_path, threshold=2).initialise()
