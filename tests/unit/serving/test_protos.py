from __future__ import annotations

from pathlib import Path

from serving.protos.generate import PROTOS, generate


def test_generating_the_messages_again_gives_the_committed_files(repository: Path, tmp_path: Path) -> None:
    generate(tmp_path)
    generated = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert len(generated) == 2 * len(PROTOS)
    assert [name for name in generated if (tmp_path / name).read_bytes() != (repository / name).read_bytes()] == []
