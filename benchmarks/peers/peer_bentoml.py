"""BentoML 1.4: a service with a batchable API, photos as base64 in JSON."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import arguments
import base64_json


def main() -> None:
    """Serve, or print a request."""
    parsed = arguments.parse(__doc__)
    if parsed.request:
        base64_json.print_request(parsed.request, path="/predict", field="photos", is_list=True)
        return
    os.environ["BENCHMARK_MODEL"] = parsed.model
    os.environ["BENTOML_DO_NOT_TRACK"] = "True"
    here = Path(__file__).parent
    command = [sys.executable, "-m", "bentoml", "serve", "bentoml_service:Classifier", f"--port={parsed.port}"]
    os.execv(command[0], [*command, "--host=127.0.0.1", f"--working-dir={here}"])


if __name__ == "__main__":
    main()
