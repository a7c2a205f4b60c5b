#!/usr/bin/python
"""Say all that keeps a host from training, at once, and whether a run has been started on it."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: training_host_preflight
short_description: List all that keeps a host from training
description:
  - Checks the virtual environment, the folders, the disk, the data and the clock.
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
  data_dir:
    description: A folder that must hold data_manifest.json; empty when the data is placed later.
    type: str
    default: ""
  controller_time:
    description: The controlling machine's clock, in seconds since 1970 UTC.
    type: float
    required: true
  max_clock_skew_seconds:
    description: How far the host's clock may be off.
    type: float
    required: true
  launch_dir:
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
"""

RETURN = r"""
failures:
  description: One sentence a failure, with what to do.
  returned: always
  type: list
  elements: str
has_run:
  description: Whether the run was started on this host before.
  returned: always
  type: bool
"""

import os
import shutil
import subprocess
import sys
import time

from ansible.module_utils.basic import AnsibleModule

_MODULES = ("tensorflow", "pydantic", "PIL", "numpy")
_FIND = "import importlib.util as u, sys; print(sys.version_info[0], sys.version_info[1], *[m for m in {!r} if not u.find_spec(m)])"


def check_python(python):
    """Return failures of the virtual environment; packages are looked for, not imported: TensorFlow takes seconds."""
    if not os.path.exists(python):
        return [f"there is no {python}; run playbooks/training_host.yml, or set training_run_python"]
    try:
        done = subprocess.run(
            [python, "-c", _FIND.format(_MODULES)], capture_output=True, text=True, timeout=60, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        return [f"{python} does not run ({error}); make the virtual environment anew with playbooks/training_host.yml"]
    major, minor, *missing = done.stdout.split()
    failures = []
    if (int(major), int(minor)) < (3, 11):
        failures.append(f"{python} is Python {major}.{minor}; Liftgate needs 3.11 or newer")
    if missing:
        failures.append(f"{python} lacks {', '.join(missing)}; run playbooks/training_host.yml")
    return failures


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


def check_data(data_dir):
    """Return failures of a data folder that is used where it is."""
    if not data_dir or os.access(os.path.join(data_dir, "data_manifest.json"), os.R_OK):
        return []
    return [f"{data_dir}/data_manifest.json cannot be read; build the dataset there, or mount it"]


def check_clock(controller_time, max_skew_seconds):
    """Return failures of the clock."""
    skew = time.time() - controller_time
    # The time that Ansible itself takes to get here counts as skew forward, so that side is wider.
    if -max_skew_seconds <= skew <= max_skew_seconds + 60:
        return []
    return [f"the clock is {skew:+.0f} s off the controlling machine's; start time synchronisation (systemd-timesyncd)"]


def main():
    """Run all checks."""
    module = AnsibleModule(
        argument_spec={
            "python": {"type": "path", "required": True},
            "writable_dirs": {"type": "list", "elements": "path", "required": True},
            "min_free_gb": {"type": "float", "required": True},
            "data_dir": {"type": "str", "default": ""},
            "controller_time": {"type": "float", "required": True},
            "max_clock_skew_seconds": {"type": "float", "required": True},
            "launch_dir": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    given = module.params
    failures = [] if sys.platform == "linux" else [f"the system is {sys.platform}; training hosts run Linux"]
    failures += check_python(given["python"])
    for path in given["writable_dirs"]:
        failures += check_directory(path, given["min_free_gb"])
    failures += check_data(given["data_dir"])
    failures += check_clock(given["controller_time"], given["max_clock_skew_seconds"])
    has_run = os.path.exists(os.path.join(given["launch_dir"], "lock"))
    module.exit_json(changed=False, failures=failures, has_run=has_run)


if __name__ == "__main__":
    main()
