"""The demo's two sites in one folder, and how its steps call the command: as separate processes, like people do."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifact_sync.errors import LiftgateError, RefusedError, SettingsError
from liftgate.demo.narration import Narrator

_MARKER = ".liftgate-demo"
_SHOWN_LINES = 4
_TRAINING_TABLES = """
[keys]
root = ["keys/root"]
approver = "keys/approver"
releaser = "keys/releaser"

[training]
runs_dir = "runs"
data_dir = "dataset"
inventory = {inventory}
trained_by = "trainer"

[validation]
holdout_dir = "holdout"
policy_path = "policy.toml"
"""
_SERVING_TABLES = """
[agent]
host = "serving-host-1"
models_dir = "models"
server_address = {address}
poll_seconds = 0.5
bake_seconds = 600

[web]
data_dir = "web"
"""


class DemoError(LiftgateError):
    """A step of the demo did not do what the story says it does."""


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def document(self) -> Any:
        """The JSON that a command with `--json` printed."""
        return json.loads(self.stdout)


@dataclass(frozen=True)
class Site:
    """One installation: a folder with its own liftgate.toml.

    Attributes:
        folder: the working directory of its commands.
        environment: what its processes have beside this process's environment, such as credentials.
        narrator: where commands are shown.
    """

    folder: Path
    environment: Mapping[str, str]
    narrator: Narrator

    def run(self, *words: str, expected: Sequence[int] = (0,), is_quiet: bool = False) -> Outcome:
        """Run `liftgate WORDS` here and return how it ended; JSON is for the story, not for its listeners.

        Raises:
            DemoError: it ended with another exit code than the expected ones.
        """
        if not is_quiet:
            self.narrator.command(("liftgate", *(word for word in words if word != "--json")))
        outcome = self._finish(words)
        if outcome.exit_code not in expected:
            raise DemoError(
                f"`liftgate {' '.join(words)}` ended with exit code {outcome.exit_code} in {self.folder}:\n"
                f"{outcome.stdout}{outcome.stderr}"
            )
        if not is_quiet and outcome.exit_code == 0 and "--json" not in words:
            self.narrator.output(outcome.stdout)
        return outcome

    def _finish(self, words: Sequence[str]) -> Outcome:
        """Run a command to its end, showing what it says while it works."""
        talk: list[str] = []
        # A file takes what a pipe would block on while the other pipe is read.
        with tempfile.TemporaryFile("w+") as result, self.narrator.working() as show:
            with subprocess.Popen(
                [sys.executable, "-m", "liftgate", *words],
                cwd=self.folder,
                env=self.variables(),
                stdin=subprocess.DEVNULL,
                stdout=result,
                stderr=subprocess.PIPE,
                text=True,
            ) as process:
                assert process.stderr is not None
                for line in process.stderr:
                    talk.append(line)
                    show(line.strip())
            result.seek(0)
            return Outcome(process.returncode, result.read(), "".join(talk))

    def refused(self, name: str, *words: str) -> None:
        """Run a command that must be refused, and show the message."""
        outcome = self.run(*words, expected=range(1, 70))
        _, mark, message = outcome.stderr.rpartition("liftgate: ")
        # A verdict or a tick is a result and on stdout; its beginning says the most.
        shown = f"{mark}{message}" if mark else "\n".join(outcome.stdout.splitlines()[:_SHOWN_LINES])
        self.narrator.refusal(name, shown, exit_code=outcome.exit_code)

    def variables(self) -> dict[str, str]:
        """Return the environment of this site's processes."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("LIFTGATE_", "AWS_"))}
        return {**kept, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONUNBUFFERED": "1", **self.environment}


def prepare_folder(folder: Path) -> None:
    """Make `folder` anew; what is there is removed only when an earlier demo made it.

    Raises:
        SettingsError: the folder holds something else.
    """
    marker = folder / _MARKER
    if folder.exists() and any(folder.iterdir()) and not marker.exists():
        raise SettingsError(f"{folder} is not empty and no earlier demo made it. Name another one with --folder.")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    marker.touch()


def make_sites(
    folder: Path,
    *,
    store: Mapping[str, str],
    environment: Mapping[str, str],
    inventory: Path,
    socket: Path,
    narrator: Narrator,
) -> tuple[Site, Site]:
    """Make the training site and the serving site under `folder`, each with its settings.

    `socket` is the model server's; its path should be short, since a Unix socket's holds 107 bytes.
    """
    training, serving = folder / "training-site", folder / "serving-site"
    for site in (training, serving):
        site.mkdir(parents=True)
    table = "".join(f"{key} = {json.dumps(value)}\n" for key, value in store.items())
    common = f'model = "photos"\n\n[store]\n{table}\n[trust]\nmetadata_dir = "metadata"\nroot_path = "root.json"\n'
    tables = _TRAINING_TABLES.format(inventory=json.dumps(str(inventory))) + _without_isolation(narrator)
    (training / "liftgate.toml").write_text(common + tables)
    (serving / "liftgate.toml").write_text(common + _SERVING_TABLES.format(address=json.dumps(f"unix:{socket}")))
    return Site(training, environment, narrator), Site(serving, environment, narrator)


def _without_isolation(narrator: Narrator) -> str:
    """Return the setting that goes without walls where this machine has none; the demo's models are its own."""
    from validation.programs.isolation import SETTING, find_isolation

    try:
        find_isolation()
    except RefusedError as error:
        narrator.say(f"{error}\nThe demo judges its own models only, so here it goes without.")
        return f"{SETTING} = true\n"
    return ""
