#!/usr/bin/python
"""Say which files of a dataset a host lacks, after taking those that another dataset on it has already."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: training_data_missing
short_description: List the files of a dataset that a host lacks
description:
  - A file's name holds its digest, so an equal name and size is the same file.
  - Files that lie in another dataset of the same folder are linked, not copied again.
options:
  files:
    description: What is to be there, each with path and, where it is known, size_bytes.
    type: list
    elements: dict
    required: true
  incoming_dir:
    description: Where the dataset is put together; it is made when missing.
    type: path
    required: true
author:
  - Liftgate
"""

EXAMPLES = r"""
- name: See what is missing
  training_data_missing:
    files: [{path: shard-00000-3f2a.tfrecord, size_bytes: 134217728}]
    incoming_dir: /srv/liftgate/data/3f2a.incoming
"""

RETURN = r"""
missing:
  description: Paths of the files that are to be copied.
  returned: always
  type: list
  elements: str
"""

import glob
import os
import shutil

from ansible.module_utils.basic import AnsibleModule


def is_there(path, entry):
    """Return whether the file is there whole; Ansible gives a copied file its name when it is."""
    size = entry.get("size_bytes")
    return os.path.isfile(path) and (size is None or os.path.getsize(path) == size)


def take(entry, incoming_dir):
    """Link the file from another dataset beside this one, and return whether one had it."""
    target = os.path.join(incoming_dir, entry["path"])
    for folder in sorted(glob.glob(os.path.join(glob.escape(os.path.dirname(incoming_dir)), "*"))):
        source = os.path.join(folder, entry["path"])
        if folder != incoming_dir and entry.get("size_bytes") is not None and is_there(source, entry):
            os.makedirs(os.path.dirname(target), exist_ok=True)
            if os.path.exists(target):
                os.unlink(target)
            os.link(source, target)
            return True
    return False


def main():
    """Look, link, and list the rest."""
    module = AnsibleModule(
        argument_spec={
            "files": {"type": "list", "elements": "dict", "required": True},
            "incoming_dir": {"type": "path", "required": True},
        }
    )
    incoming_dir = module.params["incoming_dir"]
    os.makedirs(incoming_dir, exist_ok=True)
    lacking = [file for file in module.params["files"] if not is_there(os.path.join(incoming_dir, file["path"]), file)]
    missing = [entry for entry in lacking if not take(entry, incoming_dir)]
    needed = sum(entry.get("size_bytes") or 0 for entry in missing)
    free = shutil.disk_usage(incoming_dir).free
    if needed > free:
        module.fail_json(
            msg=f"The data needs {needed / 1e9:.1f} GB more in {incoming_dir} and {free / 1e9:.1f} GB are free. Make room, "
            "put it there yourself and set training_run_data_on_host, or stream it from s3://."
        )
    changed = len(missing) < len(lacking)
    module.exit_json(changed=changed, missing=[entry["path"] for entry in missing])


if __name__ == "__main__":
    main()
