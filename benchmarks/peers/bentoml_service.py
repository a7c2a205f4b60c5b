"""The service that peer_bentoml.py serves."""

import os

import base64_json
import bentoml
import numpy as np
import saved_model


@bentoml.service(workers=1, traffic={"timeout": 60, "max_concurrency": 1000})
class Classifier:
    """Probabilities of photos."""

    def __init__(self) -> None:
        self.predict_pixels = saved_model.load(os.environ["BENCHMARK_MODEL"])

    @bentoml.api(batchable=True, max_batch_size=32, max_latency_ms=60_000)
    def predict(self, photos: list[str]) -> list[list[float]]:
        """Return the probabilities of each photo."""
        return self.predict_pixels(np.stack([base64_json.to_pixels(photo) for photo in photos])).tolist()
