"""Generate *_pb2.py and *_pb2.pyi files from *.proto: `python -m serving.protos.generate [DIRECTORY]`.

Its place in the flow: run by a developer after a change of a .proto file; a test runs it too and
compares. It needs grpcio-tools (extra `dev`).
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

PROTOS = tuple(f"serving/protos/{name}.proto" for name in ("tfs", "runtime", "health", "reflection"))
REPOSITORY = Path(__file__).resolve().parents[2]
_STUB_HEAD = "# mypy: disable-error-code=type-arg"  # protoc writes "Mapping" without its types


def generate(out_dir: Path, *, protos: Sequence[str] = PROTOS) -> None:
    """Write the generated files of `protos`, named relative to the repository, under `out_dir`.

    Raises:
        SystemExit: protoc refused a file; it has said why on stderr.
    """
    # In a process of its own: protoc and TensorFlow bring two protobufs that crash in one.
    protoc = [sys.executable, "-m", "grpc_tools.protoc", f"-I{REPOSITORY}"]
    done = subprocess.run([*protoc, f"--python_out={out_dir}", f"--pyi_out={out_dir}", *protos], check=False)
    if done.returncode:
        raise SystemExit(done.returncode)
    for proto in protos:
        stub = out_dir / proto.replace(".proto", "_pb2.pyi")
        stub.write_text(f"{_STUB_HEAD}\n{stub.read_text()}")


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else REPOSITORY)
