"""The plain way: two processes of grpcio's server on one port, each with the model, one request a run.

`python plain_grpcio.py --model=DIRECTORY --port=8500`; it speaks TensorFlow Serving's Predict.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from tensorflow_serving_request import print_request

_PROCESSES = 2


def main() -> None:
    """Start the second process, then serve."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model")
    parser.add_argument("--port", type=int)
    parser.add_argument("--is-first", type=int, default=1)
    parser.add_argument("--request", help="print the request for pixels of this shape on standard input")
    arguments = parser.parse_args()
    if arguments.request:
        print_request(tuple(map(int, arguments.request.split(","))), model="benchmark")
        return
    others = []
    if arguments.is_first:
        command = [sys.executable, __file__, f"--model={arguments.model}", f"--port={arguments.port}", "--is-first=0"]
        others = [subprocess.Popen(command) for _ in range(_PROCESSES - 1)]
    try:
        _serve(arguments.model, arguments.port)
    finally:
        for other in others:
            other.terminate()


def _serve(model: str, port: int) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    loaded = tf.saved_model.load(model)
    run = loaded.signatures["serving_default"]

    class Service(prediction_service_pb2_grpc.PredictionServiceServicer):
        def Predict(self, request: object, context: object) -> object:  # noqa: N802
            pixels = tf.make_ndarray(request.inputs["pixels"])
            response = predict_pb2.PredictResponse()
            for name, tensor in run(pixels=tf.constant(pixels)).items():
                response.outputs[name].CopyFrom(tf.make_tensor_proto(tensor.numpy()))
            return response

    server = grpc.server(ThreadPoolExecutor(8), options=(("grpc.so_reuseport", 1),))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Service(), server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main()
