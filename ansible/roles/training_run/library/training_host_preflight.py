#!/usr/bin/python
"""Say all that keeps a host from training, at once, and what the hosts of one training must have alike."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: training_host_preflight
short_description: List all that keeps a host from training
description:
  - Checks the virtual environment, the folders, the disk, the memory, the data and the clock.
  - It changes nothing and it does not fail; the caller decides over all hosts together.
options:
  python:
    description: The Python of the virtual environment that trains.
    type: path
    required: true
  writable_dirs:
    description: Folders that must exist, or be creatable, and be writable.
    type: list
    elements: path
    required: true
  min_free_gb:
    description: Free space that each of the folders needs, in 10**9 bytes.
    type: float
    required: true
  min_memory_gb:
    description: Memory that must be free for a training, in 10**9 bytes, within the limit of the control group too.
    type: float
    default: 0
  data:
    description: A folder that must hold data_manifest.json, or s3://bucket/prefix; empty when the data is placed later.
    type: str
    default: ""
  data_environment:
    description: Variables to read s3:// with, such as AWS_ENDPOINT_URL and AWS_ACCESS_KEY_ID.
    type: dict
    default: {}
  controller_time:
    description: The controlling machine's clock, in seconds since 1970 UTC.
    type: float
    required: true
  max_clock_skew_seconds:
    description: How far the host's clock may be off.
    type: float
    required: true
  launch_dir:
    description: Where the run's process is looked for.
    type: path
    required: true
  run_dir:
    description: Where the run is looked for.
    type: path
    required: true
author:
  - Liftgate
"""

EXAMPLES = r"""
- name: Check the host
  training_host_preflight:
    python: /opt/liftgate/venv/bin/python
    writable_dirs: [/srv/liftgate]
    min_free_gb: 5
    controller_time: "{{ lookup('ansible.builtin.pipe', 'date +%s') }}"
    max_clock_skew_seconds: 30
    launch_dir: /srv/liftgate/runs/.launch/r1
    run_dir: /srv/liftgate/runs/r1
"""

RETURN = r"""
failures:
  description: One sentence a failure, with what to do.
  returned: always
  type: list
  elements: str
standing:
  description: What the host has of the run; 0 nothing, 1 it trained there, 2 it was the chief, 3 the run is complete there.
  returned: always
  type: int
is_running:
  description: Whether the run is running on this host now.
  returned: always
  type: bool
alike:
  description: What all hosts of one training must have alike, versions and the digest of the data.
  returned: always
  type: dict
clock_skew_seconds:
  description: How far the clock is off the controlling machine's.
  returned: always
  type: float
"""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time

from ansible.module_utils.basic import AnsibleModule

_MODULES = ("tensorflow", "pydantic", "PIL", "numpy")
_ALIKE = ("tensorflow", "tensorflow-cpu", "keras", "numpy", "protobuf")
_LOOK = """
import importlib.util, json, platform
from importlib import metadata
def version(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
missing = [name for name in {!r} if not importlib.util.find_spec(name)]
found = {{name: version(name) for name in {!r}}}
print(json.dumps([missing, {{"python": platform.python_version(), **{{n: v for n, v in found.items() if v}}}}]))
"""
_READ_S3 = """
import sys
import boto3
from botocore.config import Config
bucket, _, prefix = sys.argv[1].removeprefix("s3://").partition("/")
key = "/".join([*filter(None, [prefix.strip("/")]), "data_manifest.json"])
config = Config(connect_timeout=10, read_timeout=20, retries={"max_attempts": 2})
sys.stdout.buffer.write(boto3.client("s3", config=config).get_object(Bucket=bucket, Key=key)["Body"].read())
"""


def look_into_python(python):
    """Return failures of the virtual environment and its versions; nothing is imported: TensorFlow takes seconds."""
    if not os.path.exists(python):
        return [f"there is no {python}; run playbooks/training_host.yml, or set training_run_python"], {}
    try:
        done = subprocess.run(
            [python, "-c", _LOOK.format(_MODULES, _ALIKE)], capture_output=True, text=True, timeout=60, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        what = f"{python} does not run ({error}); make the virtual environment anew with playbooks/training_host.yml"
        return [what], {}
    missing, versions = json.loads(done.stdout)
    failures = []
    if tuple(map(int, versions["python"].split(".")[:2])) < (3, 11):
        failures.append(f"{python} is Python {versions['python']}; Liftgate needs 3.11 or newer")
    if missing:
        failures.append(f"{python} lacks {', '.join(missing)}; run playbooks/training_host.yml")
    return failures, versions


def nearest_existing(path):
    """Return the path, or the nearest folder above it that exists."""
    while not os.path.exists(path) and path != os.path.dirname(path):
        path = os.path.dirname(path)
    return path


def check_directory(path, min_free_gb):
    """Return failures of a folder that is to be written to."""
    existing = nearest_existing(path)
    if not os.path.isdir(existing):
        return [f"{existing} is not a directory, so {path} cannot be one; move it away"]
    failures = []
    if not os.access(existing, os.W_OK | os.X_OK):
        failures.append(f"user {os.geteuid()} may not write to {existing}; give it to that user")
    free_gb = shutil.disk_usage(existing).free / 1e9
    if free_gb < min_free_gb:
        failures.append(f"{existing} has {free_gb:.1f} GB free and {min_free_gb:g} GB are asked for; make room")
    return failures


def check_memory(min_memory_gb, *, proc="/proc", groups="/sys/fs/cgroup"):
    """Return failures of the memory: what is available, or what the control group still allows."""
    with open(f"{proc}/meminfo") as stream:
        lines = dict(line.split(":", 1) for line in stream)
    left = {"the host": int(lines["MemAvailable"].split()[0]) * 1024}
    for folder, limit, used in (
        (groups, "memory.max", "memory.current"),
        (f"{groups}/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        try:
            left["the control group"] = read_number(folder, limit) - read_number(folder, used) + read_cache(folder)
        except (OSError, ValueError):
            # No such group, or "max": no limit.
            continue
    whose = min(left, key=left.get)
    if left[whose] >= min_memory_gb * 1e9:
        return []
    found = f"{whose} has {left[whose] / 1e9:.1f} GB of memory left and {min_memory_gb:g} GB are asked for"
    return [found + "; end what else runs there"]


def read_number(folder, name):
    """Return the number that a file of the control group holds."""
    with open(f"{folder}/{name}") as stream:
        return int(stream.read())


def read_cache(folder):
    """Return the bytes of files that the control group holds in memory and would give up first."""
    with open(f"{folder}/memory.stat") as stream:
        lines = dict(line.split() for line in stream)
    return int(lines.get("total_inactive_file", lines.get("inactive_file", 0)))


def look_at_data(data, *, python, environment):
    """Return failures of data that is used where it is, and the digest of its manifest."""
    if not data:
        return [], {}
    if data.startswith("s3://"):
        failures, content = read_s3(data, python=python, environment=environment)
    else:
        failures, content = read_folder(data)
    return failures, {} if failures else {"data": hashlib.sha256(content).hexdigest()}


def read_folder(data_dir):
    """Return failures of a data folder, and its manifest's bytes."""
    try:
        with open(os.path.join(data_dir, "data_manifest.json"), "rb") as stream:
            return [], stream.read()
    except OSError:
        return [f"{data_dir}/data_manifest.json cannot be read; build the dataset there, or mount it"], b""


def read_s3(url, *, python, environment):
    """Return failures of an object store, seen from this host, and its manifest's bytes."""
    try:
        done = subprocess.run(
            [python, "-c", _READ_S3, url],
            capture_output=True,
            timeout=90,
            check=False,
            env={**os.environ, **environment},
        )
    except (OSError, subprocess.SubprocessError) as error:
        return [f"{url} cannot be read ({error}); see that the store answers from this host"], b""
    if done.returncode:
        said = (done.stderr.decode(errors="replace").strip().splitlines() or ["nothing said"])[-1]
        what = f"{url}/data_manifest.json cannot be read from here ({said}); check training_run_s3_environment"
        return [what + " and the way to the store"], b""
    return [], done.stdout


def check_clock(skew, max_skew_seconds):
    """Return failures of the clock."""
    # The time that Ansible itself takes to get here counts as skew forward, so that side is wider.
    if -max_skew_seconds <= skew <= max_skew_seconds + 60:
        return []
    return [f"the clock is {skew:+.0f} s off the controlling machine's; start time synchronisation (systemd-timesyncd)"]


def look_for_run(launch_dir, run_dir):
    """Return what the host has of the run, and whether it is running."""
    marks = [(run_dir, "manifest.json", 3), (run_dir, "started.json", 2), (launch_dir, "lock", 1)]
    standing = next((rank for folder, name, rank in marks if os.path.exists(os.path.join(folder, name))), 0)
    try:
        with open(os.path.join(launch_dir, "lock"), "rb+") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return standing, True
    except OSError:
        return standing, False
    return standing, False


def main():
    """Run all checks."""
    module = AnsibleModule(
        argument_spec={
            "python": {"type": "path", "required": True},
            "writable_dirs": {"type": "list", "elements": "path", "required": True},
            "min_free_gb": {"type": "float", "required": True},
            "min_memory_gb": {"type": "float", "default": 0},
            "data": {"type": "str", "default": ""},
            "data_environment": {"type": "dict", "default": {}, "no_log": True},
            "controller_time": {"type": "float", "required": True},
            "max_clock_skew_seconds": {"type": "float", "required": True},
            "launch_dir": {"type": "path", "required": True},
            "run_dir": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    given = module.params
    skew = time.time() - given["controller_time"]
    standing, is_running = look_for_run(given["launch_dir"], given["run_dir"])
    failures = [] if sys.platform == "linux" else [f"the system is {sys.platform}; training hosts run Linux"]
    found, versions = look_into_python(given["python"])
    failures += found
    # What the run itself has taken of disk and memory is not held against it.
    for path in [] if is_running else given["writable_dirs"]:
        failures += check_directory(path, given["min_free_gb"])
    failures += [] if is_running else check_memory(given["min_memory_gb"])
    found, digest = look_at_data(given["data"], python=given["python"], environment=given["data_environment"])
    failures += found + check_clock(skew, given["max_clock_skew_seconds"])
    module.exit_json(
        changed=False,
        failures=failures,
        standing=standing,
        is_running=is_running,
        alike={**versions, **digest},
        clock_skew_seconds=skew,
    )


if __name__ == "__main__":
    main()
