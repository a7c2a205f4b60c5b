"""kill -9 at any line of a dataset's build: the next build gives the same dataset and decodes no photo twice."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import soak

_STEP = 10 if soak.IS_SOAK else 300


def test_after_a_kill_at_any_line_the_next_build_gives_the_same_dataset(tmp_path: Path) -> None:
    program = Path(__file__).with_name("dataset_sweep.py")
    first = random.randint(1, _STEP)
    done = subprocess.run(
        [sys.executable, str(program), str(tmp_path), str(first), str(_STEP)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    print(f"killed at each {_STEP}. of {found['lines']} lines from {first}: {found['stages']}")
    assert found["lines"] > 3000
    assert found["killed"] >= found["lines"] // _STEP
    # A sweep that saw one stage only proves nothing.
    assert {"reading", "writing"} <= set(found["stages"])
