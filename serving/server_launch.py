"""Start a model server in this process's place: `python -m serving.server_launch FLAGS.json -- COMMAND…`.

Its place in the flow: what the systemd unit runs. It renders the files that the server reads, says
when a binary's version is not known to work, and becomes the server, so systemd watches the server
itself. With --check it only looks whether FLAGS.json and the files that it names can be used; with
--prepare it only makes the start-up file that the agent will keep.
"""

from __future__ import annotations

import argparse
import os
import pwd
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NoReturn

from artifact_sync.errors import LiftgateError, NotFoundError, SettingsError
from serving.server_files import write_server_files, write_start_config
from serving.server_flags import ServerFlags, read_server_flags
from serving.tensorflow_serving import BINARY_NAME, binary_version, command_line, version_warning


def main(arguments: Sequence[str] | None = None) -> int:
    """Check, or write the files and become the server; return the exit code of a refusal."""
    parser = argparse.ArgumentParser(prog="python -m serving.server_launch", description=__doc__)
    parser.add_argument("flags", type=Path, help="the JSON file with ServerFlags' names as keys")
    parser.add_argument("--check", action="store_true", help="only look whether the flags can be used")
    parser.add_argument("--prepare", action="store_true", help="only make the start-up file where there is none")
    parser.add_argument("--owner", help="the user that the files belong to, when root runs this")
    parser.add_argument("command", nargs="*", help="the server's command, after --")
    chosen = parser.parse_args(arguments)
    try:
        flags = read_server_flags(chosen.flags)
        if chosen.check:
            if flags.tls is not None:
                flags.tls.read()
            return 0
        if chosen.prepare:
            write_start_config(flags)
            _give([flags.config_path], chosen.owner)
            return 0
        if not chosen.command:
            parser.error("the server's command is missing; write it after --")
        _launch(chosen.command, flags, owner=chosen.owner)
    except LiftgateError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code


def _launch(command: Sequence[str], flags: ServerFlags, *, owner: str | None) -> NoReturn:
    _give(write_server_files(flags), owner)
    binary = Path(command[0])
    if binary.name == BINARY_NAME:
        warning = version_warning(binary_version(binary))
        if warning is not None:
            sys.stderr.write(f"{warning}\n")
    words = command_line(command, flags)
    sys.stderr.flush()
    try:
        # In place of this process, so that systemd's main process is the server and no parent is left.
        os.execvp(words[0], words)  # noqa: S606
    except OSError as error:
        raise NotFoundError(f"The model server {words[0]} cannot be started: {error.strerror}.") from None


def _give(paths: Iterable[Path], owner: str | None) -> None:
    if owner is None:
        return
    try:
        account = pwd.getpwnam(owner)
    except KeyError:
        raise SettingsError(f"--owner refused: there is no user {owner!r} on this host.") from None
    for path in paths:
        os.chown(path, account.pw_uid, account.pw_gid)


if __name__ == "__main__":
    sys.exit(main())
