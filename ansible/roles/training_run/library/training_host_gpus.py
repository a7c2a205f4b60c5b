#!/usr/bin/python
"""Say all that keeps the GPUs of a host from training, and how many there are."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: training_host_gpus
short_description: List all that keeps the GPUs of a host from training
description:
  - Asks nvidia-smi for the driver, the GPUs, their memory and the processes on them.
  - It changes nothing and it does not fail; the caller decides over all hosts together.
options:
  min_driver:
    description: The oldest driver that is taken.
    type: str
    required: true
  max_used_mb:
    description: A GPU with more memory in use is not free, in 2**20 bytes.
    type: int
    required: true
  only_first:
    description: Whether the training takes one GPU only, the first.
    type: bool
    default: false
  is_running:
    description: Whether the run itself is running here, so that its GPUs are not free.
    type: bool
    default: false
author:
  - Liftgate
"""

EXAMPLES = r"""
- name: Check the GPUs
  training_host_gpus:
    min_driver: "525.60.13"
    max_used_mb: 1000
"""

RETURN = r"""
failures:
  description: One sentence a failure, with what to do.
  returned: always
  type: list
  elements: str
count:
  description: How many GPUs the host has.
  returned: always
  type: int
"""

import subprocess

from ansible.module_utils.basic import AnsibleModule

_NO_DRIVER = "nvidia-smi does not answer ({}); install the NVIDIA driver with playbooks/training_host.yml, or reboot"


def ask(query):
    """Return the rows that nvidia-smi answers, as lists of words.

    Raises OSError or subprocess.SubprocessError when it does not answer.
    """
    command = ["nvidia-smi", query, "--format=csv,noheader,nounits"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return [[word.strip() for word in line.split(",")] for line in done.stdout.splitlines() if line.strip()]


def numbers(version):
    """Return a version's numbers, to compare."""
    return [int(part) for part in version.split(".") if part.isdigit()]


def check(gpus, processes, *, min_driver, max_used_mb, only_first):
    """Return failures of GPUs (index, uuid, driver, memory used) with processes (pid, name, uuid)."""
    if not gpus:
        return ["nvidia-smi names no GPU; look with `nvidia-smi -L`, and into the kernel's log for NVRM"]
    failures = []
    if numbers(gpus[0][2]) < numbers(min_driver):
        failures.append(f"the NVIDIA driver is {gpus[0][2]}; TensorFlow needs {min_driver} or newer")
    for index, uuid, _, used in gpus[:1] if only_first else gpus:
        who = [f"{name} (process {pid})" for pid, name, owner in processes if owner == uuid]
        if who:
            failures.append(f"GPU {index} is in use by {', '.join(who)}; wait for it, or end it")
        elif used.isdigit() and int(used) > max_used_mb:
            failures.append(f"GPU {index} has {used} MiB in use and no process is shown; reset it, or reboot")
    return failures


def main():
    """Ask and check."""
    module = AnsibleModule(
        argument_spec={
            "min_driver": {"type": "str", "required": True},
            "max_used_mb": {"type": "int", "required": True},
            "only_first": {"type": "bool", "default": False},
            "is_running": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    given = module.params
    try:
        gpus = ask("--query-gpu=index,uuid,driver_version,memory.used")
        processes = [] if given["is_running"] else ask("--query-compute-apps=pid,process_name,gpu_uuid")
    except (OSError, subprocess.SubprocessError) as error:
        module.exit_json(changed=False, failures=[_NO_DRIVER.format(error)], count=0)
    if given["is_running"]:
        gpus = [[*gpu[:3], "0"] for gpu in gpus]
    failures = check(
        gpus,
        processes,
        min_driver=given["min_driver"],
        max_used_mb=given["max_used_mb"],
        only_first=given["only_first"],
    )
    module.exit_json(changed=False, failures=failures, count=len(gpus))


if __name__ == "__main__":
    main()
