"""Generate saved_model_pb2.py and .pyi from saved_model.proto: `python -m validation.protos.generate [DIRECTORY]`.

Its place in the flow: run by a developer after a change of saved_model.proto; a test runs it too
and compares. It needs grpcio-tools (extra `dev`).
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROTO = "validation/protos/saved_model.proto"
_STUB_HEAD = "# mypy: disable-error-code=type-arg"  # protoc writes "Mapping" without its types
_REPOSITORY = Path(__file__).resolve().parents[2]


def generate(out_dir: Path) -> None:
    """Write validation/protos/saved_model_pb2.py and .pyi under `out_dir`.

    Raises:
        SystemExit: protoc refused the file; it has said why on stderr.
    """
    # In a process of its own: protoc and TensorFlow bring two protobufs that cannot live in one.
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{_REPOSITORY}"]
    status = subprocess.run(
        [*command, f"--python_out={out_dir}", f"--pyi_out={out_dir}", PROTO], check=False
    ).returncode
    if status:
        raise SystemExit(status)
    stub = out_dir / "validation/protos/saved_model_pb2.pyi"
    stub.write_text(f"{_STUB_HEAD}\n{stub.read_text()}")


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else _REPOSITORY)
