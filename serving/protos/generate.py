"""Generate tfs_pb2.py and tfs_pb2.pyi from tfs.proto: `python -m serving.protos.generate [DIRECTORY]`.

Its place in the flow: run by a developer after a change of tfs.proto; a test runs it too and
compares. It needs grpcio-tools (extra `dev`).
"""

from __future__ import annotations

import sys
from importlib.resources import files
from pathlib import Path

PROTO = "serving/protos/tfs.proto"
_STUB_HEAD = "# mypy: disable-error-code=type-arg"  # protoc writes "Mapping" without its types
_REPOSITORY = Path(__file__).resolve().parents[2]


def generate(out_dir: Path) -> None:
    """Write serving/protos/tfs_pb2.py and .pyi under `out_dir`.

    Raises:
        SystemExit: protoc refused the file; it has said why on stderr.
    """
    # A developer's tool: importing this module must not need it.
    from grpc_tools import protoc  # type: ignore[import-untyped]  # noqa: PLC0415

    well_known = files("grpc_tools") / "_proto"
    arguments = ["protoc", f"-I{_REPOSITORY}", f"-I{well_known}", f"--python_out={out_dir}", f"--pyi_out={out_dir}"]
    status = protoc.main([*arguments, PROTO])
    if status:
        raise SystemExit(status)
    stub = out_dir / "serving/protos/tfs_pb2.pyi"
    stub.write_text(f"{_STUB_HEAD}\n{stub.read_text()}")


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else _REPOSITORY)
