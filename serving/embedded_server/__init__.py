"""TensorFlow Serving's protocols and directory rules in one process.

Its place in the flow: stands where tensorflow_model_server is not at hand, started by
`python -m serving.embedded_server`; nothing else imports it, clients speak gRPC or REST to it.

From the outside in: flags → server (ports, drain) → grpc_services, rest (protocols) → predict,
metadata (one request) → catalogue (which version answers) ← lifecycle (loads and unloads) ←
transition, discovery (the rules). session and tensorflow_library alone execute TensorFlow, through
its C library: a tenth of the start-up time and of the memory of its Python package, and no lock of
Python is held while a model loads or runs.
"""
