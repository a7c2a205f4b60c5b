"""`liftgate doctor`: checks this machine, and the store when asked, and says how to get what is missing."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from artifact_sync.errors import LiftgateError, SettingsError
from liftgate.cli import EXTRAS
from liftgate.output import json_option, print_result, table

if TYPE_CHECKING:
    from liftgate.composition import Site

Mark = Literal["ok", "missing", "bad"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: `mark` "missing" is optional, "bad" is not."""

    what: str
    mark: Mark
    found: str
    remedy: str = ""


@click.command("doctor")
@click.option("--race", "rounds", type=click.IntRange(0, 1000), default=20, show_default=True,
              help="Rounds of racing the store against itself; 0 leaves the store alone.")  # fmt: skip
@json_option
@click.pass_context
def command(context: click.Context, rounds: int, as_json: bool) -> None:
    """Check this machine, its settings and its store; say what is missing and how to get it.

    Exit code 1 when something is bad. What is only missing for a role that this machine may not
    have is shown and is no failure.
    """
    findings = [*_machine(), *_installed(), *_programs(), *_site(context.obj, rounds)]
    rows = [(finding.mark, finding.what, finding.found, finding.remedy) for finding in findings]
    print_result(
        table(rows, header=("", "what", "found", "what to do")), [asdict(f) for f in findings], as_json=as_json
    )
    if any(finding.mark == "bad" for finding in findings):
        context.exit(1)


def _machine() -> Iterator[Finding]:
    supported = (3, 11) <= sys.version_info[:2] <= (3, 13)
    yield Finding(
        "Python",
        "ok" if supported else "bad",
        platform.python_version(),
        "" if supported else "install Python 3.11, 3.12 or 3.13: TensorFlow has wheels for no other",
    )
    free_gib = shutil.disk_usage(Path.cwd()).free / 2**30
    yield Finding(
        "free disk here",
        "ok" if free_gib >= 5 else "bad",
        f"{free_gib:.1f} GiB",
        "" if free_gib >= 5 else "free some: an environment with TensorFlow takes 3 GiB, each version its own size",
    )


def _installed() -> Iterator[Finding]:
    for extra, modules in EXTRAS.items():
        missing = [name for name in modules if importlib.util.find_spec(name) is None]
        yield Finding(
            f"role {extra}",
            "missing" if missing else "ok",
            f"without {', '.join(missing)}" if missing else "all libraries",
            f"pip install 'liftgate[{extra}]'" if missing else "",
        )


def _programs() -> Iterator[Finding]:
    binary = os.environ.get("LIFTGATE_TENSORFLOW_MODEL_SERVER") or shutil.which("tensorflow_model_server")
    yield Finding(
        "tensorflow_model_server",
        "ok" if binary else "missing",
        binary or "not on the PATH",
        "" if binary else "the embedded model server stands for it; docs/serving.md says how to get it",
    )
    for program, remedy in (("ssh", "apt-get install openssh-client"), ("git", "apt-get install git")):
        path = shutil.which(program)
        yield Finding(program, "ok" if path else "missing", path or "not on the PATH", "" if path else remedy)
    yield _isolation()


def _isolation() -> Finding:
    """Try what holds a candidate while it is validated: to be installed is not enough."""
    from validation.programs.isolation import find_isolation

    try:
        return Finding("bubblewrap", "ok", find_isolation().words)
    except LiftgateError:
        found = shutil.which("bwrap")
        return Finding(
            "bubblewrap",
            "missing",
            "not on the PATH" if found is None else f"{found} may not make namespaces here",
            "to validate: apt-get install bubblewrap, and let this user make namespaces (docs/validation.md)",
        )


def _site(config_path: Path | None, rounds: int) -> Iterator[Finding]:
    from liftgate.composition import Site

    try:
        site = Site.load(config_path)
    except SettingsError as error:
        yield Finding("settings", "missing" if config_path is None else "bad", str(error))
        return
    yield Finding("settings", "ok", f"model {site.settings.model}")
    if site.settings.store is None:
        yield Finding("store", "missing", "not set", '[store] url = "s3://bucket/prefix"')
        return
    if rounds:
        yield _race(site, rounds)
    if site.settings.trust is not None:
        yield _trust(site)


def _race(site: Site, rounds: int) -> Finding:
    from artifact_sync.store_race import race_store

    assert site.settings.store is not None
    try:
        report = race_store(site.registry.store, rounds=rounds, contenders=8)
    except LiftgateError as error:
        return Finding("store", "bad", str(error))
    return Finding("store", "ok", f"{site.settings.store.url}: {report.rounds} races, one winner each")


def _trust(site: Site) -> Finding:
    try:
        view = site.trusted.refresh()
    except LiftgateError as error:
        return Finding("trust", "bad", str(error))
    return Finding("trust", "ok", f"{len(view.version_numbers)} versions, {len(view.release_numbers)} releases")
