"""A trainer without TensorFlow: steps, checkpoints, SIGTERM, progress and the run folder as the real one has them.

Its configuration: `steps`, `fail_at` and `hold_at` (steps, 0 for never). At `hold_at` it waits for the
file `go` in the run folder, or for SIGTERM.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
import tomllib
from pathlib import Path

from artifact_sync.manifest import build_manifest
from training_cluster.cluster import INTERRUPTED_EXIT_CODE


def main() -> int:
    parser = argparse.ArgumentParser()
    for name in ("run-dir", "run-id", "model", "config", "data", "trained-by"):
        parser.add_argument(f"--{name}", required=True)
    options = parser.parse_args()
    config = tomllib.loads(Path(options.config).read_text())
    run_dir = Path(options.run_dir)
    checkpoint = run_dir / "checkpoints" / "step"
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    asked_to_stop: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: asked_to_stop.append(number))
    first = int(checkpoint.read_text()) if checkpoint.exists() else 0
    sys.stderr.write(f"starting at step {first} as process {os.getpid()}\n")
    with (run_dir / "starts").open("a") as starts:
        starts.write(f"{first}\n")
    for step in range(first + 1, config["steps"] + 1):
        if step == config["fail_at"]:
            sys.stderr.write("the loss is not a number\n")
            return 1
        with (run_dir / "progress.jsonl").open("a") as progress:
            progress.write(json.dumps({"step": step, "total_steps": config["steps"], "loss": 1 / step}) + "\n")
        checkpoint.write_text(str(step))
        while step == config["hold_at"] and not (run_dir / "go").exists() and not asked_to_stop:
            time.sleep(0.02)
        if asked_to_stop:
            return INTERRUPTED_EXIT_CODE
    return finish(run_dir, options.run_id, data=(Path(options.data) / "data_manifest.json").read_bytes())


def finish(run_dir: Path, run_id: str, *, data: bytes) -> int:
    export = run_dir / "export"
    (export / "variables").mkdir(parents=True, exist_ok=True)
    (export / "saved_model.pb").write_bytes(data)
    (export / "variables" / "variables.data-00000-of-00001").write_bytes(run_id.encode() * 100_000)
    (run_dir / "run.json").write_text("{}")
    (run_dir / "manifest.json").write_bytes(build_manifest(export).to_json())
    return 0


if __name__ == "__main__":
    sys.exit(main())
