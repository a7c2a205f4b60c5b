"""A key that lies elsewhere: in ssh-agent or on a PKCS #11 token; its key file says only where.

Its place in the flow: `liftgate keys new --ssh-agent` or `--pkcs11-module` writes the reference where
a private key would lie, and KeyFile.load opens it, so that every verb which takes a key file takes it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from artifact_sync.canonical import Record

if TYPE_CHECKING:
    from artifact_sync.trust.keys import AskPassphrase, PublicKey, Signer


class KeyReference(Record):
    """Where the private half of an Ed25519 key is to be found.

    Attributes:
        place: "ssh-agent": the agent that SSH_AUTH_SOCK names; "pkcs11": a token.
        ed25519: the public half's 32 bytes in hex, by which the key is found and checked.
        module: the token's PKCS #11 library; of "pkcs11" only.
        token: the token's label; of "pkcs11" only.
        object: the private key's label on the token; of "pkcs11" only.
    """

    schema_name: ClassVar[str] = "liftgate.key-reference/1"
    place: Literal["ssh-agent", "pkcs11"]
    ed25519: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    module: Path | None = None
    token: Annotated[str, Field(min_length=1)] | None = None
    object: Annotated[str, Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _belongs_to_its_place(self) -> Self:
        on_token = (self.module, self.token, self.object)
        if (self.place == "pkcs11") != (None not in on_token) or (self.place == "ssh-agent" and any(on_token)):
            raise ValueError("a key on a token needs module, token and object, and a key in ssh-agent has none of them")
        return self

    def open(self, public: PublicKey, *, ask_passphrase: AskPassphrase | None) -> Signer:
        """Return what signs as `public`; nothing is asked of the agent or the token yet.

        Args:
            public: the public half beside the reference.
            ask_passphrase: where a token's PIN comes from.

        Raises:
            SettingsError: the library that speaks to it is not installed.
        """
        if self.place == "ssh-agent":
            from artifact_sync.trust.ssh_agent import AgentSigner

            return AgentSigner(public)
        from artifact_sync.trust.pkcs11_token import TokenSigner

        return TokenSigner(public, reference=self, ask_passphrase=ask_passphrase)
