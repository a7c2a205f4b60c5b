"""Photos of every kind, for the tests of the photo contract."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def good_photos(corpus: tuple) -> tuple:
    """The kinds that decode."""
    return tuple(kind for kind in corpus if kind.reason is None)


@pytest.fixture(scope="session")
def agent_lab() -> ModuleType:
    """The module tests/agent_lab.py: a signed bucket, a host and a model server in memory."""
    spec = importlib.util.spec_from_file_location("agent_lab", Path(__file__).parents[2] / "agent_lab.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def tls_authority() -> type:
    """The class in tests/tls_authority.py: it makes certificates for tests."""
    spec = importlib.util.spec_from_file_location("tls_authority", Path(__file__).parents[2] / "tls_authority.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.TestAuthority
