"""`python -m serving.embedded_server`: flags in, an exit code out.

Its place in the flow: the edge of the process. Exit codes: 0 after SIGTERM or SIGINT and a drain,
255 when it cannot start (as the real server), 2 for flags that are refused.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from artifact_sync.errors import SettingsError
from serving.embedded_server.flags import Flags, flags_help, parse_flags
from serving.embedded_server.server import Server
from serving.embedded_server.status import StatusError
from serving.embedded_server.tensorflow_library import tensorflow_library

CANNOT_START_EXIT_CODE = 255


def main(arguments: Sequence[str]) -> int:
    """Run the server until it is told to end; return the exit code."""
    try:
        flags, notes = parse_flags(arguments)
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    if flags.help:
        sys.stdout.write(flags_help())
        return 0
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    for note in notes:
        logging.warning("%s", note)
    # TensorFlow's library writes its own log to stderr; what is below an error is of no use here.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if flags.version:
        return _print_version()
    return _serve(flags)


def _print_version() -> int:
    library = tensorflow_library().version().decode()
    sys.stdout.write(f"TensorFlow ModelServer: embedded in Liftgate\nTensorFlow Library: {library}\n")
    return 0


def _serve(flags: Flags) -> int:
    try:
        server = Server(flags, announce=_announce)

        def stop(number: int, frame: FrameType | None) -> None:
            server.stop()

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        server.run()
    except StatusError as error:
        # On both streams: the real server's log is on stderr, and what greps it looks there.
        logging.error("%s", error)
        sys.stdout.write(f"Failed to start server. Error: {error}\n")
        return CANNOT_START_EXIT_CODE
    return 0


def _announce(line: str) -> None:
    # Whoever started this process may be waiting for the line on a pipe.
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
