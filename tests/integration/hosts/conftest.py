"""Machines to train on, an inventory of them, and a request."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

_LAB = Path(__file__).parents[2] / "lab"
_GROUPS = ("training_hosts", "serving_hosts", "web_fronts")


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"hosts_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # dataclasses look their module up by name.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def machines() -> ModuleType:
    """The module that makes machines; skips where that cannot be."""
    module = _load(_LAB / "machines.py")
    reason = module.why_not()
    if reason is not None:
        pytest.skip(reason)
    return module


@pytest.fixture
def lab(machines: ModuleType, tmp_path: Path) -> Iterator[Any]:
    """A lab whose machines end with the test."""
    lab = machines.Lab(tmp_path / "lab")
    lab.folder.mkdir()
    try:
        yield lab
    finally:
        lab.close()


@pytest.fixture(scope="module")
def shared_lab(machines: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A lab whose machines serve all tests of a file."""
    lab = machines.Lab(tmp_path_factory.mktemp("lab"))
    try:
        yield lab
    finally:
        lab.close()


@pytest.fixture(scope="module")
def site(machines: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A lab whose machines have a network of their own, which this thread is in too."""
    reason = machines.why_no_network()
    if reason is not None:
        pytest.skip(reason)
    with machines.Network() as network:
        lab = machines.Lab(tmp_path_factory.mktemp("site"), network=network)
        try:
            yield lab
        finally:
            lab.close()


@pytest.fixture
def write_inventory(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes an inventory of training hosts, with their keys pinned, and returns its path."""

    def write(*hosts: Any, pinned: str | None = None, variables: Mapping[str, object] | None = None) -> Path:
        known_hosts = tmp_path / "known_hosts"
        known_hosts.write_text("".join(host.known_hosts_line for host in hosts) if pinned is None else pinned)
        listed = {
            host.name: {
                "ansible_host": host.address,
                "ansible_port": host.port,
                "ansible_ssh_private_key_file": str(host.identity_file),
            }
            for host in hosts
        }
        common = {
            "ansible_user": "trainer",
            "ansible_python_interpreter": "/usr/bin/python3",
            "training_ssh_known_hosts": str(known_hosts),
            "ansible_ssh_common_args": f"-o UserKnownHostsFile={known_hosts} -o GlobalKnownHostsFile=/dev/null",
            "training_run_python": sys.executable,
            "training_run_min_free_gb": 0.1,
            **(variables or {}),
        }
        inventory = tmp_path / "inventory.json"
        inventory.write_text(json.dumps({"training_hosts": {"hosts": listed, "vars": common}}))
        return inventory

    return write


@pytest.fixture
def standin_command() -> list[str]:
    """The trainer's command with the stand-in in the trainer's place; the role fills in the rest."""
    return [
        *["{{ training_run_python }}", str(_LAB / "standin_trainer.py")],
        *["--run-dir", "{{ training_run_dir }}", "--run-id", "{{ training_run_id }}"],
        *["--model", "{{ training_run_model }}", "--config", "{{ training_run_config }}"],
        *["--data", "{{ training_run_host_data }}", "--trained-by", "{{ training_run_trained_by }}"],
    ]


@pytest.fixture
def make_request(tmp_path: Path) -> Callable[..., Any]:
    """Return a function that makes a request with its files for the stand-in trainer."""
    from training_cluster.cluster import TrainingRequest

    def make(
        run_id: str = "run-1", *, steps: int = 4, fail_at: int = 0, hold_at: int = 0, spread: str = "host"
    ) -> TrainingRequest:
        config_path = tmp_path / f"{run_id}.toml"
        # How the stand-in reads a configuration.
        config_path.write_text(
            f"[optimization]\nepochs = {steps}\n[execution]\nhistograms_every_epochs = {hold_at}\n"
            f"[data]\nmax_examples = {fail_at}\n"
        )
        data_dir = tmp_path / "data"
        data_dir.mkdir(exist_ok=True)
        (data_dir / "data_manifest.json").write_text(json.dumps({"shards": [{"path": "s/0", "size_bytes": 60_000}]}))
        (data_dir / "s").mkdir(exist_ok=True)
        (data_dir / "s" / "0").write_bytes(b"pixels" * 10_000)
        (data_dir / "holdout.csv").write_text("path,label\n")
        return TrainingRequest(
            run_id=run_id,
            model="digits",
            config_path=config_path,
            data=str(data_dir),
            runs_dir=tmp_path / "runs",
            trained_by="ann",
            spread=spread,
        )

    return make


@pytest.fixture
def digits_request(repository: Path, tmp_path: Path) -> Any:
    """A request to train scikit-learn's digits for real, quickly, on all hosts."""
    from training_cluster.cluster import TrainingRequest

    training_lab = _load(repository / "tests" / "training_lab.py")
    training_lab.write_digits(tmp_path / "digits")
    config = tmp_path / "digits.toml"
    config.write_text(training_lab.QUICK)
    data = str(tmp_path / "digits")
    return TrainingRequest("real-digits", "digits", config, data, tmp_path / "runs", "ann", spread="hosts")


@pytest.fixture
def play(repository: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that runs playbooks on a machine as root, by the command that an operator types."""

    def run(
        *playbooks: str, machine: Any, variables: Mapping[str, object], check: bool = False
    ) -> subprocess.CompletedProcess[str]:
        known_hosts = tmp_path / "known_hosts"
        known_hosts.write_text(machine.known_hosts_line)
        host = {
            "ansible_host": "127.0.0.1",
            "ansible_port": machine.port,
            "ansible_user": "root",
            "ansible_ssh_private_key_file": str(machine.identity_file),
            "ansible_ssh_common_args": f"-o UserKnownHostsFile={known_hosts} -o GlobalKnownHostsFile=/dev/null",
            "ansible_python_interpreter": "/usr/bin/python3",
        }
        inventory = tmp_path / "provisioning.json"
        inventory.write_text(json.dumps({group: {"hosts": {machine.name: host}} for group in _GROUPS}))
        extra = tmp_path / "variables.json"
        extra.write_text(json.dumps(dict(variables)))
        command = [str(Path(sys.executable).with_name("ansible-playbook"))]
        command += [f"playbooks/{playbook}" for playbook in playbooks]
        command += ["-i", str(inventory), "-e", f"@{extra}", *(["--check", "--diff"] if check else [])]
        return subprocess.run(command, cwd=repository / "ansible", capture_output=True, text=True, check=False)

    return run


@pytest.fixture
def signed_site(tmp_path: Path) -> Any:
    """A bucket with keys and trust, and nothing released yet."""
    site = tmp_path / "site"
    site.mkdir()
    return _load(_LAB.parent / "signed_site.py").SignedSite(site).initialise()
