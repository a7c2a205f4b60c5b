"""LitServe 0.2: batches of at most 32 photos, base64 in JSON."""

from __future__ import annotations

import arguments
import base64_json
import litserve
import numpy as np
import saved_model


class Classifier(litserve.LitAPI):
    """Probabilities of photos."""

    def __init__(self, model: str) -> None:
        super().__init__(max_batch_size=32, batch_timeout=0.0005)
        self.model_path = model

    def setup(self, device: str) -> None:
        """Load the model, in a worker."""
        self.predict_pixels = saved_model.load(self.model_path)

    def decode_request(self, request: dict[str, str]) -> np.ndarray:
        """Return one photo's pixels."""
        return base64_json.to_pixels(request["photo"])

    def predict(self, pixels: list[np.ndarray]) -> np.ndarray:
        """Return the probabilities of a batch."""
        return self.predict_pixels(np.stack(pixels))

    def encode_response(self, output: np.ndarray) -> dict[str, list[float]]:
        """Return one photo's answer."""
        return {"probabilities": output.tolist()}


def main() -> None:
    """Serve, or print a request."""
    parsed = arguments.parse(__doc__)
    if parsed.request:
        base64_json.print_request(parsed.request, path="/predict", field="photo", is_list=False)
        return
    server = litserve.LitServer(Classifier(parsed.model), accelerator="cpu", workers_per_device=2)
    server.run(port=parsed.port, host="127.0.0.1", generate_client_file=False, log_level="warning")


if __name__ == "__main__":
    main()
