"""The provisioning playbooks on machines with real systemd: check changes nothing, converge works, again changes nothing."""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Play = Callable[..., "subprocess.CompletedProcess[str]"]


def changed(played: subprocess.CompletedProcess[str]) -> int:
    """Return how many tasks changed something; a failed play fails the test with what it said."""
    assert played.returncode == 0, played.stdout[-4000:] + played.stderr[-1000:]
    found = re.findall(r"changed=(\d+)", played.stdout)
    assert found, played.stdout
    return sum(map(int, found))


def eventually(machine: Any, command: str, expected: str) -> None:
    deadline = time.monotonic() + 60
    while (said := machine.run(command).stdout) != expected:
        if time.monotonic() > deadline:
            logs = machine.run("journalctl --no-pager -n 60 -u 'liftgate-*' -u nginx").stdout
            raise AssertionError(f"{command}: {said!r} is not {expected!r}\n{logs}")
        time.sleep(0.2)


@pytest.fixture
def systemd_machine(machines: Any, lab: Any) -> Any:
    reason = machines.why_no_systemd()
    if reason is not None:
        pytest.skip(reason)
    return lab.boot("serve1", systemd=True)


@pytest.fixture
def serving_machine(systemd_machine: Any, repository: Path, signed_site: Any) -> Any:
    """A machine with Liftgate's environment and a bucket, both of which the operator provides."""
    script = repository / "tests" / "lab" / "liftgate_environment.sh"
    made = systemd_machine.run(f"{script} {sys.base_prefix} {sysconfig.get_paths()['purelib']} {repository}")
    assert made.returncode == 0, made.stderr
    systemd_machine.copy(signed_site.path / "bucket", "/srv/bucket")
    systemd_machine.run("chmod -R a+rwX /srv/bucket; echo AWS_REGION=nowhere > /etc/liftgate-s3; chmod 600 /etc/liftgate-s3")
    return systemd_machine


def test_a_serving_host_with_its_front_end_is_made_from_nothing(
    serving_machine: Any, signed_site: Any, play: Play, tmp_path: Path
) -> None:
    root = tmp_path / "1.root.json"
    root.write_bytes(signed_site.root_bytes)
    variables = {
        "python_environment_is_managed": False,
        "liftgate_host_model": signed_site.model,
        "liftgate_host_store_url": "dir:/srv/bucket",
        "liftgate_host_root_metadata": str(root),
        "liftgate_host_credentials_file": "/etc/liftgate-s3",
        "liftgate_host_min_free_gb": 0.1,
        "serving_host_model_server": "embedded",
        "web_front_packages": [],
    }

    def run(playbook: str, group: str, *, check: bool = False) -> int:
        return changed(play(playbook, serving_machine, group, variables=variables, check=check))

    assert run("serving_host.yml", "serving_hosts", check=True) > 0
    assert serving_machine.run("ls /etc/liftgate /etc/systemd/system/liftgate-agent.service").stdout == ""
    assert run("serving_host.yml", "serving_hosts") > 0
    assert run("web_front.yml", "web_fronts", check=True) > 0
    assert run("web_front.yml", "web_fronts") > 0

    for unit in ("liftgate-model-server", "liftgate-agent", "liftgate-web", "nginx"):
        eventually(serving_machine, f"systemctl is-active {unit}", "active\n")
    eventually(serving_machine, "stat -c %U:%a /run/liftgate", "liftgate:750\n")
    eventually(serving_machine, "test -S /run/liftgate/model-server.sock && echo there", "there\n")
    alive = "curl -s -o /dev/null -w %{http_code} http://127.0.0.1/healthz"
    eventually(serving_machine, alive, "200")
    assert run("serving_host.yml", "serving_hosts") == 0
    assert run("web_front.yml", "web_fronts") == 0
    restarts = "systemctl show -P NRestarts liftgate-model-server liftgate-agent liftgate-web | xargs"
    assert serving_machine.run(restarts).stdout == "0 0 0\n"
    listening = serving_machine.run("systemctl show -P User,PrivateNetwork,NoNewPrivileges liftgate-model-server | xargs")
    assert listening.stdout == "liftgate yes yes\n"
