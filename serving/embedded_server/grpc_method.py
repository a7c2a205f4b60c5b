"""What a gRPC method is to the transport that serves it.

Its place in the flow: grpc_services, grpc_health and grpc_reflection make them, by paths such as
"/tensorflow.serving.PredictionService/Predict"; the transport calls them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from google.protobuf.message import Message

from serving.embedded_server.status import StatusError

Reply: TypeAlias = Callable[[Message | StatusError], None]
"""Takes the answer of a call: exactly once, from any thread, without blocking."""

Handler: TypeAlias = Callable[[Any, float | None, Reply], None]
"""Takes a request, the seconds left for it (None: no limit), and where the answer goes."""


@dataclass(frozen=True)
class Method:
    """One message in, one message out.

    Attributes:
        request_type: what the bytes of a request are parsed as.
        handle: begins the work.
        is_blocking: run `handle` in a thread of the pool; else it runs in the thread that serves
            all connections and must return within microseconds, the answer coming later.
    """

    request_type: type[Message]
    handle: Handler
    is_blocking: bool


@dataclass(frozen=True)
class DialogueMethod:
    """A stream of messages in, and for each at once one message out; reflection is made like that.

    Attributes:
        request_type: what the bytes of a request are parsed as.
        answer: returns the answer within microseconds, or raises StatusError, which ends the dialogue.
    """

    request_type: type[Message]
    answer: Callable[[Any], Message]
