"""MLServer 1.7: adaptive batching, the Open Inference Protocol over gRPC."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path

import arguments
import open_inference_request


def main() -> None:
    """Serve, or print a request."""
    parsed = arguments.parse(__doc__)
    if parsed.request:
        from mlserver.grpc import dataplane_pb2

        open_inference_request.print_request(dataplane_pb2.ModelInferRequest(), parsed.request)
        return
    folder = Path(tempfile.mkdtemp())
    ports = {"grpc_port": parsed.port, "http_port": parsed.port + 1, "metrics_port": parsed.port + 2}
    (folder / "settings.json").write_text(json.dumps({"host": "127.0.0.1", "parallel_workers": 0, **ports}))
    model = {"name": "benchmark", "implementation": "mlserver_runtime.Classifier", "max_batch_size": 32}
    (folder / "model-settings.json").write_text(json.dumps({**model, "max_batch_time": 0.001}))
    os.environ["BENCHMARK_MODEL"] = parsed.model
    sys.path.insert(0, str(Path(__file__).parent))
    from mlserver.cli.serve import load_settings
    from mlserver.server import MLServer

    async def serve() -> None:
        found, models = await load_settings(str(folder))
        await MLServer(found).start(models)

    asyncio.run(serve())


if __name__ == "__main__":
    main()
