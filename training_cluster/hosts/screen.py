"""How a run looks to a person: a table of its hosts and a line for the whole, or plain lines without a terminal.

Its place in the flow: `liftgate train` hands over what `RunWatch` knows and shows what comes back. Nothing
here asks or waits. Text that came from a host is shown without what a terminal would obey.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from training_cluster.hosts.host_report import HostReport
from training_cluster.hosts.watch import HostView

_COLUMNS = ("host", "state", "step", "images/s", "input wait", "GPU memory", "GPU use", "CPU load", "last line")
_OLD_SECONDS = 15.0
_STATE_STYLES = {"running": "green", "complete": "green", "failed": "red", "interrupted": "yellow"}


def screen(views: Sequence[HostView], *, run_id: str, now: float) -> RenderableType:
    """Return the picture of a run: the whole first, then its hosts.

    Args:
        views: what is known of the hosts, the chief first.
        run_id: the run's name.
        now: this machine's monotonic clock.
    """
    table = Table(box=None, pad_edge=False, expand=True)
    for column in _COLUMNS:
        is_number = column in _COLUMNS[2:8]
        is_last = column == _COLUMNS[-1]
        table.add_column(column, justify="right" if is_number else "left", no_wrap=True, ratio=1 if is_last else None)
    for view in views:
        # A bare string would be read as markup.
        table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in _cells(view, now=now)))
    head = Text.assemble((f"run {run_id}  ", "bold"), whole_line(views))
    return Group(head, table)


def whole_line(views: Sequence[HostView]) -> str:
    """Return one line about the whole run: step, figures, time left, newest evaluation, silent hosts."""
    chief = _chief_report(views)
    if chief is None:
        return "waiting for the hosts" + _silent(views)
    parts = [_step(chief)]
    parts += [f"{name} {chief.figures[name]:.4g}" for name in ("loss", "accuracy") if name in chief.figures]
    if "images_per_second" in chief.figures:
        parts.append(f"{chief.figures['images_per_second']:,.0f} images/s")
    if chief.status == "running" and chief.steps_per_second > 0 and chief.total_steps > chief.step:
        left = timedelta(seconds=round((chief.total_steps - chief.step) / chief.steps_per_second))
        parts.append(f"{left} left")
    if chief.evaluation:
        parts.append(_evaluated(chief))
    return ", ".join(parts) + _silent(views)


def host_lines(views: Sequence[HostView], *, now: float) -> tuple[str, ...]:
    """Return a plain line for each host, for where there is no terminal."""
    lines = []
    for view in views:
        cells = _cells(view, now=now)
        shown = [f"{name} {cell}" for name, cell in zip(_COLUMNS[2:8], cells[2:8], strict=True) if str(cell) != "-"]
        lines.append(f"{cells[0]}: " + ", ".join([str(cells[1]), *shown]))
    return tuple(lines)


def plain(text: str) -> str:
    """Return a host's text on one line, with nothing in it that a terminal obeys."""
    return "".join(char if char.isprintable() else " " for char in text)


def _chief_report(views: Sequence[HostView]) -> HostReport | None:
    """Return what the chief says, else what the first host says that says anything."""
    return next((view.report for view in views if view.report is not None), None)


def _step(report: HostReport) -> str:
    if not report.total_steps:
        return plain(report.detail) if report.status == "running" else f"{report.status}: {plain(report.detail)}"
    share = f"{100 * report.step / report.total_steps:.0f} %"
    state = "" if report.status == "running" else f"{report.status}, "
    return f"{state}step {report.step:,} of {report.total_steps:,} ({share})"


def _evaluated(report: HostReport) -> str:
    names = [name for name in ("loss", "accuracy") if name in report.evaluation]
    figures = " and ".join(f"{name} {report.evaluation[name]:.4g}" for name in names)
    return f"evaluated after step {report.evaluation.get('step', 0):,.0f}: {figures}"


def _silent(views: Sequence[HostView]) -> str:
    names = [view.name for view in views if view.trouble]
    return f"; no answer from {', '.join(names)}" if names else ""


def _cells(view: HostView, *, now: float) -> tuple[str | Text, ...]:
    report = view.report
    if report is None:
        state = Text("no answer", "red") if view.trouble else Text("asking", "dim")
        return (view.name, state, *["-"] * 6, plain(view.trouble))
    seconds = now - view.heard_at
    is_old = bool(view.trouble) or seconds > _OLD_SECONDS
    state = (
        Text(f"no answer for {timedelta(seconds=round(seconds))}", "red")
        if is_old
        else Text(report.status, _STATE_STYLES.get(report.status, ""))
    )
    figures = report.figures
    rate = figures.get("host_images_per_second", figures.get("images_per_second"))
    wait = figures.get("input_wait_share")
    return (
        view.name,
        state,
        f"{report.step:,}",
        "-" if rate is None else f"{rate:,.0f}",
        "-" if wait is None else f"{100 * wait:.0f} %",
        _memory(report),
        _use(report),
        f"{report.load:.1f}/{report.cores}",
        plain(view.trouble or view.last_line),
    )


def _memory(report: HostReport) -> str:
    """Return used and whole memory of all the host's GPUs, in 10**9 bytes."""
    known = [
        (gpu.memory_used_megabytes, gpu.memory_total_megabytes)
        for gpu in report.gpus
        if gpu.memory_used_megabytes is not None and gpu.memory_total_megabytes is not None
    ]
    if not known:
        # Without nvidia-smi on the host: what TensorFlow itself says it took.
        own = report.figures.get("gpu_memory_megabytes")
        return "-" if own is None else f"{own / 1e3:.1f} GB"
    # nvidia-smi says mebibytes.
    used, total = (sum(pair[place] for pair in known) * 2**20 / 1e9 for place in (0, 1))
    return f"{used:.1f}/{total:.0f} GB"


def _use(report: HostReport) -> str:
    uses = [gpu.use_percent for gpu in report.gpus if gpu.use_percent is not None]
    return " ".join(f"{use:.0f}" for use in uses) + " %" if uses else "-"
