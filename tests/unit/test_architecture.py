"""The rules of docs/architecture.md that a tool can hold: imports, refused names, fast start."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGES = ("artifact_sync", "liftgate", "serving", "training_cluster", "validation", "web")
REFUSED_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "base", "manager"}
# Who may import a heavy or foreign library, and where it may never appear.
MAY_IMPORT = {
    "boto3": {"artifact_sync/s3_"},
    "botocore": {"artifact_sync/s3_"},
    "paramiko": {
        "training_cluster/hosts/ssh.py",
        "training_cluster/hosts/sftp_fetch.py",
        "training_cluster/hosts/pinned_keys.py",
        "artifact_sync/trust/ssh_agent.py",
    },
    "pkcs11": {"artifact_sync/trust/pkcs11_token.py"},
    "flask": {"web/"},
    "tensorflow": {"training_cluster/", "serving/embedded_server/", "validation/"},
    "keras": {"training_cluster/"},
}
HEAVY = ("tensorflow", "keras", "boto3", "botocore", "paramiko", "flask", "numpy", "PIL", "grpc", "pydantic", "tuf")


def _modules(repository: Path) -> Iterator[tuple[str, ast.Module]]:
    for package in PACKAGES:
        for path in sorted((repository / package).rglob("*.py")):
            if not path.name.endswith("_pb2.py"):
                yield path.relative_to(repository).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def _imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def test_a_foreign_library_is_imported_only_where_it_belongs(repository: Path) -> None:
    strays = [
        f"{name} imports {imported}"
        for name, tree in _modules(repository)
        for imported in _imported(tree)
        for library, places in MAY_IMPORT.items()
        if imported.split(".")[0] == library and not any(name.startswith(place) for place in places)
    ]
    assert strays == []


def test_no_file_has_a_name_that_says_nothing(repository: Path) -> None:
    assert [name for name, _ in _modules(repository) if Path(name).stem in REFUSED_NAMES] == []


def test_every_module_says_its_job_first(repository: Path) -> None:
    assert [name for name, tree in _modules(repository) if not ast.get_docstring(tree)] == []


def test_the_ansible_folder_is_no_python_package(repository: Path) -> None:
    assert list((repository / "ansible").rglob("__init__.py")) == []


def test_help_imports_no_heavy_library() -> None:
    program = (
        "import sys, json\n"
        "sys.argv = ['liftgate', '--help']\n"
        "import liftgate.cli\n"
        "try:\n    liftgate.cli.main()\nexcept SystemExit:\n    pass\n"
        "print('\\n' + json.dumps(sorted({name.split('.')[0] for name in sys.modules})))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    assert loaded & set(HEAVY) == set()


@pytest.mark.parametrize("modules", ["web.assembly, web.server", "serving.agent_loop, serving.tensorflow_serving"])
def test_a_front_end_and_a_serving_host_need_nothing_of_training(modules: str) -> None:
    program = f"import sys, json, {modules}; print(json.dumps(sorted({{n.split('.')[0] for n in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    unwanted = {"tensorflow", "keras", "ansible", "ansible_runner", "paramiko", "scipy", "sklearn", "tensorboard"}
    assert set(json.loads(done.stdout)) & unwanted == set()


def test_every_verb_of_the_table_exists_and_has_a_help_text() -> None:
    from importlib import import_module

    import click

    from liftgate.cli import VERBS

    for name, (module, line) in VERBS.items():
        command = import_module(module).command
        assert isinstance(command, click.Command), name
        assert command.name == name
        assert command.help, name
        assert line.endswith("."), name


def test_the_exit_codes_of_the_documentation_are_those_of_the_code(repository: Path) -> None:
    from artifact_sync import errors

    page = (repository / "docs" / "command-line.md").read_text(encoding="utf-8")
    documented = {int(code): names for code, names in re.findall(r"^\| (\d+) \| (.+?) \|", page, flags=re.MULTILINE)}
    for name in dir(errors):
        kind = getattr(errors, name)
        if isinstance(kind, type) and issubclass(kind, errors.LiftgateError):
            assert f"`{name}`" in documented[kind.exit_code], name


@pytest.mark.parametrize("page", ["README.md", "docs/command-line.md"])
def test_the_verbs_of_the_documentation_exist(repository: Path, page: str) -> None:
    from liftgate.cli import VERBS

    text = (repository / page).read_text(encoding="utf-8")
    named = set(re.findall(r"^(?:\| )?`liftgate ([a-z-]+)", text, flags=re.MULTILINE))
    assert named <= set(VERBS)
    if page != "README.md":
        assert set(VERBS) <= named


def test_local_links_of_the_documentation_lead_somewhere(repository: Path) -> None:
    broken = []
    for page in [
        *repository.glob("*.md"),
        *(repository / "docs").rglob("*.md"),
        *(repository / "ansible").rglob("*.md"),
    ]:
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
            if "://" not in target and not target.startswith("mailto:") and not (page.parent / target).exists():
                broken.append(f"{page.relative_to(repository)}: {target}")
    assert broken == []
