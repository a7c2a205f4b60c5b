#!/usr/bin/python
"""Try whether the hosts of a training reach each other at the ports where its workers will listen."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: training_host_port
short_description: Try whether hosts reach each other
description:
  - First every host listens, then every host connects to all the others, then every host closes.
  - It does not fail; the caller decides over all hosts together.
options:
  act:
    description: Which of the three.
    type: str
    choices: [listen, connect, close]
    required: true
  port:
    description: Of listen, where the worker will listen.
    type: int
  listener:
    description: Of close, the process that listen has returned.
    type: int
    default: 0
  peers:
    description: Of connect, the other hosts by name, each with address:port.
    type: dict
    default: {}
  seconds:
    description: How long a listener stays when nobody closes it, and a connection may take.
    type: int
    default: 60
author:
  - Liftgate
"""

EXAMPLES = r"""
- name: Connect to the other hosts
  training_host_port:
    act: connect
    peers:
      gpu2: 192.0.2.12:12345
"""

RETURN = r"""
failures:
  description: One sentence a failure, with what to do.
  returned: always
  type: list
  elements: str
listener:
  description: Of listen, the process that listens; 0 when there is none.
  returned: always
  type: int
"""

import os
import signal
import socket
import time

from ansible.module_utils.basic import AnsibleModule

_CONNECT_SECONDS = 5.0


def listen(port, seconds):
    """Listen in a process of its own; return failures and the process."""
    try:
        listening = socket.create_server(("", port))
    except OSError as error:
        what = f"port {port} cannot be listened at ({os.strerror(error.errno)}); end what uses it, or set training_worker_port"
        return [what], 0
    pid = os.fork()
    if pid:
        return [], pid
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    # The kernel answers connections by itself; nobody has to accept them.
    with listening:
        time.sleep(seconds)
    os._exit(0)


def connect(peers, seconds):
    """Return failures of connecting to each peer, a refused one first tried again: it may just be coming up."""
    failures = []
    for name, place in sorted(peers.items()):
        address, _, port = place.rpartition(":")
        deadline = time.monotonic() + min(seconds, _CONNECT_SECONDS)
        while True:
            try:
                socket.create_connection((address.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()
                break
            except ConnectionRefusedError as error:
                problem = error.strerror
                if time.monotonic() >= deadline:
                    failures.append(_unreached(name, place, problem))
                    break
                time.sleep(0.2)
            except OSError as error:
                failures.append(_unreached(name, place, error.strerror or str(error)))
                break
    return failures


def _unreached(name, place, problem):
    return f"{name} cannot be reached at {place} from here ({problem}); open that port between the training hosts"


def close(listener):
    """End the listener; one that has ended is fine."""
    try:
        os.kill(listener, signal.SIGKILL)
    except ProcessLookupError:
        return


def main():
    """Do one of the three."""
    module = AnsibleModule(
        argument_spec={
            "act": {"type": "str", "choices": ["listen", "connect", "close"], "required": True},
            "port": {"type": "int"},
            "listener": {"type": "int", "default": 0},
            "peers": {"type": "dict", "default": {}},
            "seconds": {"type": "int", "default": 60},
        },
        required_if=[("act", "listen", ["port"])],
        supports_check_mode=True,
    )
    given = module.params
    failures, listener = [], 0
    if given["act"] == "listen":
        failures, listener = listen(given["port"], given["seconds"])
    elif given["act"] == "connect":
        failures = connect(given["peers"], given["seconds"])
    elif given["listener"]:
        close(given["listener"])
    module.exit_json(changed=False, failures=failures, listener=listener)


if __name__ == "__main__":
    main()
