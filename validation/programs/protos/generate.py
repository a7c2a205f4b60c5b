"""Generate saved_model_pb2.py and .pyi from the .proto: `python -m validation.programs.protos.generate [DIRECTORY]`.

Its place in the flow: run by a developer after a change of saved_model.proto; a test runs it too
and compares.
"""

from __future__ import annotations

import sys
from pathlib import Path

from serving.protos.generate import REPOSITORY
from serving.protos.generate import generate as generate_protos

PROTO = "validation/programs/protos/saved_model.proto"


def generate(out_dir: Path) -> None:
    """Write validation/programs/protos/saved_model_pb2.py and .pyi under `out_dir`.

    Raises:
        SystemExit: protoc refused the file; it has said why on stderr.
    """
    generate_protos(out_dir, protos=(PROTO,))


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else REPOSITORY)
