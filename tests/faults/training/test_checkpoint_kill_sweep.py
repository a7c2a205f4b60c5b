"""kill -9 while a checkpoint is written: swept over every line of the writer, and at random moments."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

_SEED = 20261120
_MOMENTS = 40


def test_after_a_kill_at_any_line_or_moment_a_whole_checkpoint_is_restored(tmp_path: Path) -> None:
    program = Path(__file__).with_name("checkpoint_sweep.py")
    done = subprocess.run(
        [sys.executable, str(program), str(tmp_path), str(_MOMENTS), str(_SEED)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    lines, moments = found["lines"], found["moments"]
    print(
        f"killed at each of {sum(lines.values()) - 1} lines and at {_MOMENTS} moments (seed {_SEED}): "
        f"restored the checkpoint before in {lines['20']} and {moments.get('20', 0)}, the new one in "
        f"{lines['30']} and {moments.get('30', 0)}, none in 0"
    )
    # Before the rename the old one counts, after it the new one: a sweep that saw only one side proves nothing.
    assert sum(lines.values()) > 60
    assert lines["20"] > 30
    assert lines["30"] > 5
    assert sum(moments.values()) == _MOMENTS
