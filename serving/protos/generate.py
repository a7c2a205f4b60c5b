"""Generate the *_pb2.py and *_pb2.pyi files from *.proto: `python -m serving.protos.generate [DIRECTORY]`.

Its place in the flow: run by a developer after a change of a .proto file; a test runs it too and
compares. It needs grpcio-tools (extra `dev`).
"""

from __future__ import annotations

import sys
from importlib.resources import files
from pathlib import Path

PROTOS = ("serving/protos/tfs.proto", "serving/protos/runtime.proto")
_STUB_HEAD = "# mypy: disable-error-code=type-arg"  # protoc writes "Mapping" without its types
_REPOSITORY = Path(__file__).resolve().parents[2]


def generate(out_dir: Path) -> None:
    """Write the generated files under `out_dir`, in serving/protos/.

    Raises:
        SystemExit: protoc refused a file; it has said why on stderr.
    """
    # A developer's tool: importing this module must not need it.
    from grpc_tools import protoc  # type: ignore[import-untyped]  # noqa: PLC0415

    well_known = files("grpc_tools") / "_proto"
    arguments = ["protoc", f"-I{_REPOSITORY}", f"-I{well_known}", f"--python_out={out_dir}", f"--pyi_out={out_dir}"]
    status = protoc.main([*arguments, *PROTOS])
    if status:
        raise SystemExit(status)
    for proto in PROTOS:
        stub = out_dir / proto.replace(".proto", "_pb2.pyi")
        stub.write_text(f"{_STUB_HEAD}\n{stub.read_text()}")


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else _REPOSITORY)
