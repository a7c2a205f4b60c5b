"""Liftgate's embedded model server, batching as docs/performance.md recommends for the model."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from tensorflow_serving_request import print_request


def main() -> None:
    """Serve a SavedModel, or print a request."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="a version's directory")
    parser.add_argument("--port", type=int)
    parser.add_argument("--request", help="print the request for pixels of this shape on standard input")
    arguments = parser.parse_args()
    if arguments.request:
        print_request(tuple(map(int, arguments.request.split(","))), model="benchmark")
        return
    name = arguments.model.parent.name
    parameters = Path(__file__).resolve().parents[1] / f"batching-{name}.pbtxt"
    command = [sys.executable, "-m", "serving.embedded_server", f"--port={arguments.port}", "--model_name=benchmark"]
    command += [f"--model_base_path={arguments.model.parent}"]
    command += ["--enable_batching", f"--batching_parameters_file={parameters}"]
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
