"""The provisioning playbooks on machines with real systemd: check, converge, converge again with nothing changed."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

STATUS_OF = "python3 -c 'import sys, urllib.request as r; print(r.urlopen(sys.argv[1]).status)'"
PYTHON = "/opt/liftgate/venv/bin/python"
# Asks as the front end's user does, and says the version or the last words of the refusal.
PREDICT = f"""runuser -u liftgate -- {PYTHON} -c '
import numpy
from serving.model_server import GrpcModelServer
from artifact_sync.errors import ModelServerError
try:
    with GrpcModelServer("unix:/run/liftgate-balancer/grpc.sock") as server:
        print(server.predict("{{model}}", numpy.zeros((1, 8, 8, 1), numpy.uint8)).version)
except ModelServerError as error:
    print("No model server is up" if "No model server is up" in str(error) else error)
'"""
# What an agent would have written.
START = f"""runuser -u liftgate -- {PYTHON} -c '
from pathlib import Path
from serving.model_server import ModelConfig, model_config_text
models = Path("/var/lib/liftgate/models")
config = ModelConfig("{{model}}", str(models / "{{model}}"), (7,))
(models / "models.config").write_text(model_config_text([config]))
'"""
# Does with the embedded server what podman does with the image: starts it detached, in this control
# group and as the user it is told, and hands its process to systemd.
PODMAN = """#!/bin/bash
echo "$*" >> /srv/podman.log
case $1 in
image) test -e /srv/podman.image ;;
pull) touch /srv/podman.image ;;
run)
    while [ $# -gt 0 ]; do
        case $1 in
        --user) user=${2%:*} group=${2#*:} ;;
        docker.io/*) shift; break ;;
        esac
        shift
    done
    setpriv --reuid "$user" --regid "$group" --clear-groups /opt/liftgate/venv/bin/liftgate model-server "$@" &
    systemd-notify --pid=$! --ready
    ;;
stop) kill "$(systemctl show -P MainPID liftgate-model-server)" ;;
esac
"""
# A driver with one GPU, an environment without anything, and two services that only have to be there.
STAND_INS = r"""
cat > /usr/bin/nvidia-smi <<'DRIVER'
#!/bin/sh
case "$*" in
*driver_version*) echo "550.54.15, Disabled" ;;
*uuid*) echo "0, GPU-1, 93, 1200, 15360, 44, [N/A]" ;;
*) echo "| NVIDIA-SMI 550.54.15   Driver Version: 550.54.15   CUDA Version: 12.4 |" ;;
esac
DRIVER
chmod 755 /usr/bin/nvidia-smi
mkdir -p /usr/local/stand-in/bin
ln -s /usr/bin/python3 /usr/local/stand-in/bin/python
cd /etc/systemd/system
for name in keeps-time prometheus-node-exporter; do
    printf '[Service]\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=basic.target\n' > $name.service
done
"""
GPU_MEMORY = 'liftgate_gpu_memory_used_bytes{gpu="0",uuid="GPU-1"} 1258291200\n'
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
    if shutil.which("nginx", path="/usr/sbin:/usr/bin") is None:
        pytest.skip("the front end's machine needs nginx (Debian: nginx-light)")
    script = repository / "tests" / "lab" / "liftgate_environment.sh"
    made = systemd_machine.run(f"{script} {sys.base_prefix} {sysconfig.get_paths()['purelib']} {repository}")
    assert made.returncode == 0, made.stderr
    systemd_machine.copy(signed_site.path / "bucket", "/srv/bucket")
    systemd_machine.run(
        "chmod -R a+rwX /srv/bucket; echo AWS_REGION=nowhere > /etc/liftgate-s3; chmod 600 /etc/liftgate-s3"
    )
    return systemd_machine


def test_a_serving_host_with_its_front_end_is_made_from_nothing(
    serving_machine: Any, signed_site: Any, play: Play, repository: Path, tmp_path: Path
) -> None:
    variables = {
        **common_variables(signed_site, tmp_path),
        "liftgate_host_credentials_file": "/etc/liftgate-s3",
        "serving_host_model_server": "embedded",
        "web_front_packages": [],
        "web_front_port": free_port(),
        "web_front_http_port": free_port(),
    }

    def run(*playbooks: str, check: bool = False) -> int:
        return changed(play(*playbooks, machine=serving_machine, variables=variables, check=check))

    both = in_one_play("serving_host", "web_front", folder=tmp_path, repository=repository)
    assert run("serving_host.yml", "web_front.yml", check=True) > 0
    assert serving_machine.run("ls /etc/liftgate /etc/systemd/system/liftgate-agent.service").stdout == ""
    assert run(both) > 0
    for unit in ("liftgate-model-server", "liftgate-agent", "liftgate-web", "nginx"):
        eventually(serving_machine, f"systemctl is-active {unit}", "active\n")
    eventually(serving_machine, "stat -c %U:%a /run/liftgate", "liftgate:750\n")
    eventually(serving_machine, "test -S /run/liftgate/model-server.sock && echo there", "there\n")
    eventually(serving_machine, f"{STATUS_OF} http://127.0.0.1:{variables['web_front_http_port']}/healthz", "200\n")
    assert run(both) == 0

    restarts = "systemctl show -P NRestarts liftgate-model-server liftgate-agent liftgate-web | xargs"
    assert serving_machine.run(restarts).stdout == "0 0 0\n"
    sandbox = "systemctl show -P User -P PrivateNetwork -P NoNewPrivileges liftgate-model-server | xargs"
    assert serving_machine.run(sandbox).stdout == "liftgate yes yes\n"


def test_a_serving_host_behind_a_balancer_is_made_from_nothing(
    serving_machine: Any, signed_site: Any, play: Play, repository: Path, tmp_path: Path
) -> None:
    """gRPC on a port behind mutual TLS, and HAProxy in front of it, on one machine."""
    if shutil.which("haproxy", path="/usr/sbin:/usr/bin") is None:
        pytest.skip("the balancer's machine needs haproxy (Debian: haproxy)")
    prepare_tls_and_export(serving_machine, repository, tmp_path)
    port = free_port()
    variables = {
        **common_variables(signed_site, tmp_path),
        "serving_host_model_server": "embedded",
        "serving_host_batching": {"max_batch_size": 16, "allowed_batch_sizes": [4, 16]},
        "serving_host_port": port,
        "serving_host_tls_ca": "/etc/ssl/site/authority.pem",
        "serving_host_tls_certificate": "/etc/ssl/site/serve1.pem",
        "serving_host_tls_key": "/etc/ssl/site/serve1.key",
        "model_balancer_packages": [],
        "model_balancer_servers": [{"name": "serve1", "address": f"127.0.0.1:{port}"}],
        "model_balancer_ca": "/etc/ssl/site/authority.pem",
        "model_balancer_certificate": "/etc/ssl/site/balancer.both",
    }

    def run(*playbooks: str, check: bool = False) -> int:
        return changed(play(*playbooks, machine=serving_machine, variables=variables, check=check))

    unsafe = {
        "serving_host_tls_ca": "",
        "serving_host_model_server": "container",
        "serving_host_version": "2.15.0",
        "serving_host_load_threads": 0,
    }
    refused = play("serving_host.yml", machine=serving_machine, variables={**variables, **unsafe}, check=True)
    assert refused.returncode == 2
    for reason in (
        "must be at least 1",
        "2.15.0 is older than 2.16",
        "must all be set",
        "open to whoever wants to load",
    ):
        assert reason in refused.stdout
    assert run("serving_host.yml", "model_balancer.yml", check=True) > 0
    assert serving_machine.run("ls /etc/liftgate-balancer /etc/systemd/system/liftgate-balancer.service").stdout == ""
    both = in_one_play("serving_host", "model_balancer", folder=tmp_path, repository=repository)
    assert run(both) > 0
    for unit in ("liftgate-model-server", "liftgate-balancer"):
        eventually(serving_machine, f"systemctl is-active {unit}", "active\n")
    assert run(both) == 0
    assert_answers_through_the_balancer(serving_machine, model=signed_site.model)


def test_a_serving_host_with_a_container_is_made_from_nothing(
    serving_machine: Any, signed_site: Any, play: Play, tmp_path: Path
) -> None:
    """podman is a stand-in: no container can run inside a test machine. Unit, command and files are the real ones."""
    prepare_podman(serving_machine, tmp_path)
    variables = {
        **common_variables(signed_site, tmp_path),
        "serving_host_model_server": "container",
        "serving_host_container_packages": [],
        "serving_host_image_digest": f"sha256:{'5' * 64}",
    }

    def run(*, check: bool = False) -> int:
        return changed(play("serving_host.yml", machine=serving_machine, variables=variables, check=check))

    assert run(check=True) > 0
    assert serving_machine.run("ls /etc/systemd/system/liftgate-model-server.service /srv/podman.image").stdout == ""
    assert run() > 0
    eventually(serving_machine, "test -S /run/liftgate/model-server.sock && echo there", "there\n")
    assert run() == 0
    assert_held_by_podman(serving_machine)


def test_a_training_host_is_made_from_nothing_out_of_wheels_alone(
    systemd_machine: Any, play: Play, tmp_path: Path
) -> None:
    """The wheels are downloaded on the controlling machine and carried over, as on a site without the internet.

    Driver, node exporter and the service that keeps the clock are stand-ins; units and files are the real ones.
    """
    systemd_machine.run(STAND_INS)
    public_key = systemd_machine.identity_file.with_suffix(".pub").read_text().strip()
    variables = {
        **wheels_of_an_index(tmp_path),
        "python_environment_python": sys.executable,
        "python_environment_tensorflow": "cuda",
        "python_environment_system_packages": [],
        "training_host_user": "gpu-trainer",
        "training_host_home": "/home/gpu-trainer",
        "training_host_work_dir": "/srv/training",
        "training_host_authorized_keys": [public_key],
        "training_host_needs_gpu": True,
        "training_host_min_free_gb": 0.1,
        "training_host_time_service": "keeps-time",
        "training_host_time_packages": [],
        "host_metrics_packages": [],
        "host_metrics_has_gpu": True,
        "host_metrics_gpu_seconds": 1,
    }

    def run(*, check: bool = False) -> int:
        return changed(play("training_host.yml", machine=systemd_machine, variables=variables, check=check))

    unfit = {
        "python_environment_is_managed": False,
        "python_environment_path": "/usr/local/stand-in",
        "python_environment_probe": "json",
        "training_host_min_free_gb": 1_000_000,
        "training_host_min_driver": "600.0",
        "training_host_min_cuda": "13.5",
        "training_host_data_mount": "/srv",
    }
    refused = play("training_host.yml", machine=systemd_machine, variables={**variables, **unfit})
    assert refused.returncode == 2
    for reason in (
        "make room or mount a larger disk",
        "The data disk is not mounted: /srv/training lies on / and not on /srv",
        "The NVIDIA driver is 550.54.15; TensorFlow needs 600.0 or newer",
        "runs CUDA up to 12.4; TensorFlow is built for 13.5",
    ):
        assert reason in refused.stdout
    assert run(check=True) > 0
    assert systemd_machine.run("ls -d /srv/training /opt/liftgate/venv/.installed; id gpu-trainer").stdout == ""
    assert run() > 0
    assert run() == 0

    assert systemd_machine.run("id -un; touch /srv/training/runs/mine", user="gpu-trainer").stdout == "gpu-trainer\n"
    listed = systemd_machine.run("/opt/liftgate/venv/bin/python -m pip list --format=freeze").stdout.split()
    assert {"liftgate==9.9", "tensorflow==2.21.0", "nvidia-stand-in==12.0"} <= set(listed)
    assert not [package for package in listed if package.startswith("tensorflow-cpu")]
    assert systemd_machine.run("ls /var/lib/systemd/linger").stdout == "gpu-trainer\n"
    states = "systemctl is-enabled keeps-time prometheus-node-exporter liftgate-gpu-metrics.timer | xargs"
    assert systemd_machine.run(states).stdout == "enabled enabled enabled\n"
    eventually(systemd_machine, "grep -h memory_used_bytes{ /var/lib/prometheus/node-exporter/*.prom", GPU_MEMORY)


def common_variables(site: Any, folder: Path) -> dict[str, object]:
    root = folder / "1.root.json"
    root.write_bytes(site.root_bytes)
    return {
        "python_environment_is_managed": False,
        "liftgate_host_model": site.model,
        "liftgate_host_store_url": "dir:/srv/bucket",
        "liftgate_host_root_metadata": str(root),
        "liftgate_host_min_free_gb": 0.1,
    }


def prepare_podman(machine: Any, folder: Path) -> None:
    (folder / "bin").mkdir()
    (folder / "bin" / "podman").write_text(PODMAN)
    (folder / "bin" / "podman").chmod(0o755)
    machine.copy(folder / "bin", "/usr/local/stand-in")
    machine.run("ln -sf /usr/local/stand-in/podman /usr/bin/podman")


def prepare_tls_and_export(machine: Any, repository: Path, folder: Path) -> None:
    (folder / "tls").mkdir()
    authority = load(repository / "tests" / "tls_authority.py").TestAuthority(folder / "tls")
    authority.issue("serve1", hosts=("serve1",))
    authority.issue("balancer")
    machine.copy(folder / "tls", "/etc/ssl/site")
    export = load(repository / "tests" / "tiny_models.py").tiny_model(folder / "export", classes=3, favourite_class=2)
    machine.copy(export, "/srv/export")


def in_one_play(*roles: str, folder: Path, repository: Path) -> str:
    """Write a playbook of several roles on one host, where the playbooks would each make the common part anew.

    Returns its path as seen from the playbooks' folder.
    """
    hosts = {"hosts": "serving_hosts", "become": True, "gather_facts": False}
    site = folder / f"{'-'.join(roles)}.yml"
    site.write_text(json.dumps([{**hosts, "roles": ["liftgate_host", *roles]}]))
    return os.path.relpath(site, repository / "ansible" / "playbooks")


def assert_held_by_podman(machine: Any) -> None:
    """The container has no network and no rights, and comes back when it is killed."""
    said = machine.run("cat /srv/podman.log").stdout.splitlines()
    image = f"docker.io/tensorflow/serving:2.20.0@sha256:{'5' * 64}"
    assert f"pull {image}" in said
    (started,) = [line for line in said if line.startswith("run ")]
    user = machine.run("echo $(id -u liftgate):$(id -g liftgate)").stdout.strip()
    for words in (
        "--cgroups=split",
        "--read-only",
        "--cap-drop ALL",
        "--network none",
        "--pull never",
        f"--user {user}",
    ):
        assert words in started
    _, _, flags = started.partition(f"{image} ")
    assert flags.startswith("--port=0 --grpc_socket_path=/run/liftgate/model-server.sock --model_config_file=")

    main_pid = "systemctl show -P MainPID liftgate-model-server"
    first = machine.run(main_pid).stdout.strip()
    machine.run(f"kill -9 $({main_pid})")
    eventually(machine, f"test $({main_pid}) != {first} && systemctl is-active liftgate-model-server", "active\n")
    eventually(machine, "test -S /run/liftgate/model-server.sock && echo there", "there\n")


def assert_answers_through_the_balancer(machine: Any, *, model: str) -> None:
    """Keys belong to who needs them; the model is asked through HAProxy, also after a reload and a kill."""
    keys = "stat -c %U:%G:%a /etc/ssl/site/serve1.key /etc/ssl/site/balancer.both /run/liftgate/ssl.config | xargs"
    assert machine.run(keys).stdout == "root:liftgate:640 root:haproxy:640 liftgate:liftgate:600\n"
    ranks = "systemctl show -P OOMScoreAdjust liftgate-model-server liftgate-agent liftgate-balancer | xargs"
    assert machine.run(ranks).stdout == "-200 -500 -500\n"
    ask = PREDICT.format(model=model)
    eventually(machine, ask, "No model server is up\n")

    models = f"/var/lib/liftgate/models/{model}"
    copy = f"install -d {models} && cp -r /srv/export {models}/7 && chown -R liftgate: {models}"
    placed = machine.run(f"{copy} && {START.format(model=model)} && systemctl restart liftgate-model-server")
    assert placed.returncode == 0, placed.stderr
    eventually(machine, ask, "7\n")
    # A reload hands the socket over; a killed balancer is back at once.
    assert machine.run(f"systemctl reload liftgate-balancer && {ask}").stdout == "7\n"
    machine.run("systemctl kill --signal=KILL --kill-whom=all liftgate-balancer")
    eventually(machine, ask, "7\n")


def load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"provisioning_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def wheels_of_an_index(folder: Path) -> dict[str, object]:
    """Write wheels and requirements, and return the variables that have the wheels downloaded from there."""
    index = folder / "index"
    index.mkdir()
    cuda = 'Provides-Extra: and-cuda\nRequires-Dist: nvidia-stand-in==12.0; extra == "and-cuda"\n'
    for name, version, more in (
        ("liftgate", "9.9", ""),
        ("tensorflow_cpu", "2.21.0", ""),
        ("tensorflow", "2.21.0", cuda),
        ("nvidia_stand_in", "12.0", ""),
    ):
        write_wheel(index, name, version, more=more)
    digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in index.iterdir()}
    requirements = folder / "requirements.txt"
    requirements.write_text(
        f"liftgate==9.9 \\\n    --hash=sha256:{digests['liftgate-9.9-py3-none-any.whl']}\n"
        "tensorflow-cpu==2.21.0 ; platform_machine == 'x86_64' \\\n"
        f"    --hash=sha256:{'0' * 64} \\\n    --hash=sha256:{digests['tensorflow_cpu-2.21.0-py3-none-any.whl']}\n"
    )
    return {
        "python_environment_requirements": str(requirements),
        "python_environment_wheels_dir": str(folder / "wheels"),
        "python_environment_download_arguments": ["--no-index", "--find-links", str(index)],
    }


def write_wheel(folder: Path, name: str, version: str, *, more: str = "") -> None:
    """Write a wheel of one module, with nothing but the standard library."""
    information, package = f"{name}-{version}.dist-info", name.replace("_", "-")
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}/__init__.py", f'__version__ = "{version}"\n')
        wheel.writestr(f"{information}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n{more}")
        wheel.writestr(f"{information}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{information}/RECORD", "")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
