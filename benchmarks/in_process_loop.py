"""The limit: one process that runs a SavedModel in a tight loop, with nothing around it.

`python benchmarks/in_process_loop.py MODEL --batch=8 --threads=2 --sessions=1 --seconds=5` prints a
line of JSON: images a second, the median milliseconds of a run, and the process's memory.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from pathlib import Path

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def main() -> None:
    """Load, warm up, loop."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="a SavedModel")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1, help="threads inside one operation")
    parser.add_argument("--loops", type=int, default=1, help="loops side by side, in threads of this process")
    parser.add_argument("--seconds", type=float, default=5.0)
    arguments = parser.parse_args()
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(arguments.threads)
    tf.config.threading.set_inter_op_parallelism_threads(max(1, arguments.loops))
    # The session of TensorFlow 1 is what TensorFlow Serving runs, and quicker than a tf.function called from Python.
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        meta_graph = tf.compat.v1.saved_model.load(session, ["serve"], str(arguments.model))
        signature = meta_graph.signature_def["serving_default"]
        taken, given = signature.inputs["pixels"], next(iter(signature.outputs.values()))
        shape = [arguments.batch, *(dim.size for dim in taken.tensor_shape.dim[1:])]
        pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        run = session.make_callable(given.name, [taken.name])
        run(pixels)
        latencies = _loop(lambda: run(pixels), loops=arguments.loops, seconds=arguments.seconds)
    sys.stdout.write(
        json.dumps(
            {
                "images_per_second": arguments.batch * len(latencies) / arguments.seconds,
                "p50_ms": float(np.median(latencies)) * 1000,
                "pss_mebibytes": _pss_mebibytes(),
            }
        )
        + "\n"
    )


def _loop(run: object, *, loops: int, seconds: float) -> list[float]:
    latencies: list[float] = []
    began = time.perf_counter() + 0.5  # the first half second warms up
    end = began + seconds

    def loop() -> None:
        while (start := time.perf_counter()) < end:
            run()
            if start >= began:
                latencies.append(time.perf_counter() - start)

    threads = [threading.Thread(target=loop) for _ in range(loops)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return latencies


def _pss_mebibytes() -> float:
    text = Path("/proc/self/smaps_rollup").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")) / 1024


if __name__ == "__main__":
    main()
