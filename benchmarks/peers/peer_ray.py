"""Ray Serve: dynamic batching, pixels as the raw body over HTTP."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import arguments
import numpy as np
import saved_model


def main() -> None:
    """Serve, or print a request."""
    parsed = arguments.parse(__doc__)
    if parsed.request:
        head = f"/\ncontent-type: application/octet-stream\nx-shape: {parsed.request}\n\n".encode()
        sys.stdout.buffer.write(head + sys.stdin.buffer.read())
        return
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray
    from ray import serve

    model_path, here = parsed.model, str(Path(__file__).resolve().parent)

    @serve.deployment(max_ongoing_requests=256, ray_actor_options={"num_cpus": 1})
    class Classifier:
        def __init__(self) -> None:
            self.predict_pixels = saved_model.load(model_path)

        @serve.batch(max_batch_size=32, batch_wait_timeout_s=0.0)
        async def predict(self, photos: list[np.ndarray]) -> list[list[float]]:
            return self.predict_pixels(np.stack(photos)).tolist()

        async def __call__(self, request: object) -> list[float]:
            shape = [int(size) for size in request.headers["x-shape"].split(",")[1:]]
            return await self.predict(np.frombuffer(await request.body(), np.uint8).reshape(shape))

    ray.init(num_cpus=2, include_dashboard=False, runtime_env={"env_vars": {"PYTHONPATH": here}}, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": parsed.port})
    serve.run(Classifier.bind(), blocking=True)


if __name__ == "__main__":
    main()
