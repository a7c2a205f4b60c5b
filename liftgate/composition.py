"""Builds collaborators from settings: the one place where the command knows implementations.

Its place in the flow: each verb asks a `Site` for what it needs and nothing else; every method
imports what it builds, so that a verb loads only its own libraries.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import click

from artifact_sync.errors import NotFoundError, RefusedError, SettingsError
from artifact_sync.run_folder import RunFolder
from liftgate.configuration import Settings, load_settings
from liftgate.output import is_interactive

if TYPE_CHECKING:
    from artifact_sync.registry import Registry
    from artifact_sync.trust import TrustedReader
    from artifact_sync.trust.keys import Signer
    from serving.model_server import GrpcModelServer, ServerTls
    from serving.settings import AgentSettings
    from validation.budgets.ledger import BudgetLedger
    from validation.photos.holdout import HoldoutRecord
    from web.settings import WebSettings


@dataclass(frozen=True)
class Site:
    """What one installation's settings make."""

    settings: Settings

    @classmethod
    def load(cls, config_path: Path | None) -> Site:
        """Read the settings file.

        Raises:
            SettingsError: see `load_settings`.
        """
        return cls(load_settings(config_path))

    @cached_property
    def registry(self) -> Registry:
        """The model's part of the bucket; nothing is contacted yet."""
        from artifact_sync.registry import Registry
        from artifact_sync.settings import open_store

        if self.settings.store is None:
            raise SettingsError('No store is set. Add to the settings file: [store] url = "s3://bucket/prefix".')
        return Registry(open_store(self.settings.store), model=self.settings.model)

    @cached_property
    def trusted(self) -> TrustedReader:
        """The verified view of the bucket."""
        from artifact_sync.trust import TrustedReader

        trust = self.settings.trust
        if trust is None:
            raise SettingsError(
                "No trusted root is set. Add to the settings file: [trust] metadata_dir = …, root_path = …; "
                "`liftgate keys init` makes the root."
            )
        try:
            root = trust.root_path.read_bytes()
        except OSError as error:
            raise NotFoundError(
                f"The trusted root {trust.root_path} cannot be read ({error.strerror}). `liftgate keys init` "
                "writes it; hosts are given a copy when they are set up."
            ) from None
        return TrustedReader(self.registry, metadata_dir=trust.metadata_dir, root=root)

    def holdout_dir(self, named: Path | None) -> Path:
        """Return the folder of the holdout: the one named, else the one that is set.

        Raises:
            RefusedError: there is neither.
        """
        directory = named or self.settings.validation.holdout_dir
        if directory is None:
            raise RefusedError(
                "Refused: no holdout is set. Freeze photos that people labelled with "
                "`liftgate dataset freeze-holdout`, and set [validation] holdout_dir."
            )
        return directory

    def ledger(self, holdout: HoldoutRecord) -> BudgetLedger:
        """Return the ledger of a holdout's error budget; nothing is contacted yet."""
        from validation.budgets.ledger import BudgetLedger

        trust = self.settings.trust
        seen_path = None if trust is None else trust.metadata_dir / "seen-budgets.json"
        return BudgetLedger(self.registry, holdout, seen_path=seen_path)

    def run(self, run_id: str) -> RunFolder:
        """Return the folder of a run that exists.

        Raises:
            NotFoundError: there is no such run; the message names the nearest ones.
        """
        runs = self.settings.training.runs_dir
        # A longer name than a file may have is an error of the system, not an answer.
        is_name = run_id not in {"", ".", ".."} and "/" not in run_id and len(os.fsencode(run_id)) < 256
        # A variant lies in its run: "x-bfloat16" in the run "x".
        for folder in (RunFolder(runs / run_id), RunFolder(runs / run_id.rpartition("-")[0] / "variants" / run_id)):
            if is_name and folder.path.is_dir():
                return folder
        known = sorted(entry.name for entry in runs.iterdir() if entry.is_dir()) if runs.is_dir() else []
        shown = ", ".join(known[-5:]) or "none yet"
        raise NotFoundError(f"There is no run {run_id!r} in {runs}. The newest there: {shown}.")

    def model_server(self) -> GrpcModelServer:
        """Return a client of this host's model server, as the agent asks it; it connects when it is first used."""
        from serving.model_server import GrpcModelServer

        agent = self.settings.agent
        return GrpcModelServer(agent.server_address, tls=_server_tls(agent))

    def front_end_model_server(self) -> GrpcModelServer:
        """Return a client as the front end asks for answers: [web] where it says something, else as the agent."""
        from serving.model_server import GrpcModelServer

        web, agent = self.settings.web, self.settings.agent
        if web.server_address is None:
            return GrpcModelServer(agent.server_address, tls=_server_tls(web) or _server_tls(agent))
        return GrpcModelServer(web.server_address, tls=_server_tls(web))

    def signing_key(self, path: Path | None, *, role: str) -> Signer:
        """Load a private key; the passphrase comes from the environment or a prompt.

        Raises:
            SettingsError: no key is named, or it cannot be used.
        """
        from artifact_sync.trust import KeyFile

        if path is None:
            raise SettingsError(
                f"No {role} key is set. Name its file with --key, or add to the settings file: [keys] {role} = …. "
                "`liftgate keys new NAME` makes one."
            )
        return KeyFile(path).load(ask_passphrase=passphrase())


def _server_tls(settings: AgentSettings | WebSettings) -> ServerTls | None:
    """Return the TLS that a table of the settings asks for; all of its files are named there, or none."""
    from serving.model_server import ServerTls

    if settings.server_ca_path is None:
        return None
    return ServerTls(
        ca_path=settings.server_ca_path,
        certificate_path=settings.server_certificate_path,
        key_path=settings.server_key_path,
        server_name=settings.server_name,
    )


def passphrase() -> Callable[[str], str] | None:
    """Return where passphrases come from: the environment, else a prompt when there is a terminal."""
    from artifact_sync.trust.keys import passphrase_source

    def ask(sentence: str) -> str:
        answer: str = click.prompt(sentence, hide_input=True, err=True)
        return answer

    return passphrase_source(os.environ, prompt=ask if is_interactive() else None)
