"""Follow a run to its end: one screen at a terminal, a line now and then where there is none, or all logs.

Its place in the flow: `liftgate train` calls `follow` when it has started a run or found it. Leaving with
Ctrl-C, or dying, ends only the looking.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from artifact_sync.errors import TrainingError
from liftgate.output import say
from liftgate.plain_text import one_line

if TYPE_CHECKING:
    from rich.live import Live

    from training_cluster.cluster import Cluster, TrainingRequest, TrainingState
    from training_cluster.hosts.attachment import AttachedHost
    from training_cluster.hosts.watch import HostView

_LOG_CHARACTERS = 4000
_LOOK_SECONDS = 0.25
_ASK_AGAIN_SECONDS = 2.0
_SAY_SECONDS = 10.0
_HERE_SECONDS = 0.5
_THERE_SECONDS = 2.0


def follow(cluster: Cluster, request: TrainingRequest, *, logs: bool = False) -> TrainingState:
    """Show how the run goes until it does not run any more, and return how it stands then.

    Raises:
        TrustError: a host's key is not the pinned one.
    """
    from training_cluster.hosts.attachment import Attachment, attachment_path
    from training_cluster.hosts.watch import RunWatch

    attachment = Attachment.load(attachment_path(request.runs_dir, request.run_id))
    if attachment is None or request.run_folder.is_complete:
        return cluster.state(request)
    is_here = all(host.connection == "local" for host in attachment.hosts)
    watch = RunWatch(
        attachment.hosts,
        on_log=_log_printer(attachment.hosts) if logs else None,
        every_seconds=_HERE_SECONDS if is_here else _THERE_SECONDS,
    )
    with watch, _display(request.run_id, is_plain=logs) as display:
        try:
            return _until_it_ends(cluster, request, watch=watch, display=display)
        except KeyboardInterrupt:
            say(f"Run {request.run_id} goes on; `liftgate train --attach {request.run_id}` shows it again.")
            raise


class _Watch(Protocol):
    def views(self) -> tuple[HostView, ...]: ...


class _Display(Protocol):
    def show(self, views: tuple[HostView, ...]) -> None: ...


def _until_it_ends(cluster: Cluster, request: TrainingRequest, *, watch: _Watch, display: _Display) -> TrainingState:
    asked_at = 0.0
    while True:
        views = watch.views()
        refusal = next((view.refusal for view in views if view.refusal is not None), None)
        if refusal is not None:
            raise refusal
        display.show(views)
        if _may_have_ended(views) and time.monotonic() - asked_at >= _ASK_AGAIN_SECONDS:
            state = _asked(cluster, request)
            if state is not None and state.status != "running":
                return state
            asked_at = time.monotonic()
        time.sleep(_LOOK_SECONDS)


def _may_have_ended(views: tuple[HostView, ...]) -> bool:
    """Return whether somebody says that it does not run; all hosts together are asked then."""
    chief = views[0].report
    if chief is not None and chief.status == "complete":
        return True
    answering = [view.report for view in views if view.report is not None and not view.trouble]
    return bool(answering) and all(report.status != "running" for report in answering)


def _asked(cluster: Cluster, request: TrainingRequest) -> TrainingState | None:
    try:
        return cluster.state(request)
    except TrainingError:
        # Too many hosts do not answer just now; the display says which.
        return None


def _log_printer(hosts: Sequence[AttachedHost]) -> Callable[[str, str], None]:
    """Return what prints a log's line with its host before it; lines of several hosts never mix."""
    lock, width = threading.Lock(), max(len(host.name) for host in hosts)

    def print_line(host: str, line: str) -> None:
        with lock:
            say(f"{host:{width}} | {one_line(line, most=_LOG_CHARACTERS)}")

    return print_line


@contextmanager
def _display(run_id: str, *, is_plain: bool) -> Iterator[_Display]:
    from rich.console import Console

    console = Console(stderr=True)
    if is_plain or not console.is_terminal:
        yield _Lines()
        return
    from rich.live import Live

    with Live(console=console, auto_refresh=False, transient=True) as live:
        yield _Screen(live, run_id)


class _Screen:
    def __init__(self, live: Live, run_id: str) -> None:
        self._live = live
        self._run_id = run_id

    def show(self, views: tuple[HostView, ...]) -> None:
        from training_cluster.hosts.screen import screen

        self._live.update(screen(views, run_id=self._run_id, now=time.monotonic()), refresh=True)


class _Lines:
    """Says what is new, not more often than every few seconds; that a host falls silent is said at once."""

    def __init__(self) -> None:
        self._said = ""
        self._said_at = -_SAY_SECONDS
        self._silent: frozenset[str] = frozenset()

    def show(self, views: tuple[HostView, ...]) -> None:
        from training_cluster.hosts.screen import host_lines, whole_line

        silent = frozenset(view.name for view in views if view.trouble)
        whole = whole_line(views)
        now = time.monotonic()
        is_due = now - self._said_at >= _SAY_SECONDS and any(view.report is not None for view in views)
        if whole == self._said or not (is_due or silent != self._silent):
            return
        say(f"  {whole}")
        if len(views) > 1:
            for line in host_lines(views, now=now):
                say(f"    {line}")
        self._said, self._said_at, self._silent = whole, now, silent
