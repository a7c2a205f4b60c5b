"""The answers, policies and time of the unit tests of judging, for tests that go on from judging to deciding."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

_SPEC = importlib.util.spec_from_file_location(
    "judging_fixtures", Path(__file__).parents[2] / "unit" / "validation" / "conftest.py"
)
assert _SPEC is not None
assert _SPEC.loader is not None
sys.modules[_SPEC.name] = _FIXTURES = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_FIXTURES)

make_answers, make_policy, now = _FIXTURES.make_answers, _FIXTURES.make_policy, _FIXTURES.now
