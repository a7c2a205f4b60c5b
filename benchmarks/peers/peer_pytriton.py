"""NVIDIA PyTriton: Triton's dynamic batcher before a Python function, the Open Inference Protocol over gRPC."""

from __future__ import annotations

import arguments
import numpy as np
import open_inference_request
import saved_model


def main() -> None:
    """Serve, or print a request."""
    parsed = arguments.parse(__doc__)
    if parsed.request:
        from tritonclient.grpc import service_pb2

        open_inference_request.print_request(service_pb2.ModelInferRequest(), parsed.request)
        return
    from pytriton.decorators import batch
    from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
    from pytriton.triton import Triton, TritonConfig

    predict_pixels = saved_model.load(parsed.model)
    is_small = parsed.model.split("/")[-2] == "small-cnn"
    shape = (28, 28, 1) if is_small else (224, 224, 3)

    @batch
    def infer(pixels: np.ndarray) -> dict[str, np.ndarray]:
        return {"probabilities": predict_pixels(pixels)}

    config = TritonConfig(grpc_port=parsed.port, allow_http=True, http_port=parsed.port + 1, allow_metrics=False)
    with Triton(config=config) as triton:
        triton.bind(
            model_name="benchmark",
            infer_func=infer,
            inputs=[Tensor(name="pixels", dtype=np.uint8, shape=shape)],
            outputs=[Tensor(name="probabilities", dtype=np.float32, shape=(-1,))],
            config=ModelConfig(max_batch_size=64, batcher=DynamicBatcher(max_queue_delay_microseconds=0)),
        )
        triton.serve()


if __name__ == "__main__":
    main()
