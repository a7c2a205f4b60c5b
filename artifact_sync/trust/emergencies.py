"""Listing a version in an emergency: the create-only step that the break-glass key alone can do.

Its place in the flow: validation/releases/break_glass.py decides, this writes the list, and publisher.py the
release, which needs the releaser's key. Either key alone changes nothing that a host would serve.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from tuf.api.metadata import Targets

from artifact_sync.errors import AlreadyExistsError, LostRaceError, RefusedError, TrustError
from artifact_sync.records import ReleaseRecord, VersionRecord
from artifact_sync.registry import Registry
from artifact_sync.trust.checking import verify
from artifact_sync.trust.keys import Signer
from artifact_sync.trust.lists import emergencies_document, target_file
from artifact_sync.trust.roles import Roles
from artifact_sync.trust.signing import sign
from artifact_sync.trust.state import EmergencyList, SignedState, next_list, read_if_there
from artifact_sync.trust.view import TrustedView


def list_emergency(
    registry: Registry, state: SignedState, record: VersionRecord, signer: Signer, *, now: datetime, period: timedelta
) -> None:
    """Create the next list of emergencies, with `record` added; nothing names it until it is completed.

    Args:
        registry: the model's part of the bucket.
        state: the newest state, completed.
        record: the version, with the emergency that it is for.
        signer: the break-glass key.
        now: the time of signing.
        period: for how long the list is to be believed.

    Raises:
        RefusedError: the site has no break-glass key, or this is not it.
        LostRaceError: the glass was broken by somebody else at the same time.
    """
    role = check_break_glass_key(Roles.of(state.root, state.targets), signer)
    data = record.to_json()
    path = f"versions/{record.version:06d}.json"
    listed = {} if state.emergencies is None else state.emergencies.document.targets
    if path in listed or path in state.targets.targets:
        raise LostRaceError(f"{path} was listed by somebody else; look at it before deciding anew.")
    number = 1 if state.emergencies is None else state.emergencies.document.version + 1
    added = target_file(path, data)
    registry.put_blob(data, sha256=added.hashes["sha256"])
    file = sign(emergencies_document({**listed, path: added}, number=number, expires=now + period), [signer])
    name = f"{number}.{role}.json"
    verify(state.targets, file, role=role, name=f"the new {name}", kind=type(state.targets))
    try:
        registry.create_metadata(role, number, file)
    except AlreadyExistsError:
        raise LostRaceError(f"{name} was created by somebody else; look at it before deciding anew.") from None


def check_break_glass_key(roles: Roles, signer: Signer) -> str:
    """Return the name of the break-glass role.

    Raises:
        RefusedError: the site has none, or the key is not its holder's.
    """
    if roles.break_glass is None or roles.break_glass_role is None:
        raise RefusedError(
            "Breaking the glass refused: this site has no break-glass key, so there is no way past the approvers. "
            "The holders of the root keys and the approvers can name one with `liftgate keys rotate --break-glass KEY`."
        )
    if signer.public.key_id != roles.break_glass.key_id:
        raise RefusedError(
            f"Breaking the glass refused: the key of {signer.public.name} is not the trusted break-glass key (that is "
            f"{roles.break_glass.name}'s). Name that key with --key."
        )
    return roles.break_glass_role


def with_pending_emergencies(registry: Registry, state: SignedState) -> SignedState:
    """Return the state with the next list of emergencies that no snapshot names yet, or `state` itself.

    A list that hosts would refuse is not taken in: whoever has the break-glass key alone stops nobody.

    Raises:
        TrustError: the object in its place is not signed with the break-glass key, or says what it may not.
    """
    role = Roles.of(state.root, state.targets).break_glass_role
    if role is None:
        return state
    number = 1 if state.emergencies is None else state.emergencies.document.version + 1
    name = f"{number}.{role}.json"
    data = read_if_there(registry, name)
    if data is None:
        return state
    document = next_list(state.targets, data, role=role, name=name)
    _check_sound(registry, state, document, name=name)
    return replace(state, emergencies=EmergencyList(role, document, data))


def _check_sound(registry: Registry, state: SignedState, document: Targets, *, name: str) -> None:
    """Refuse a list that lets go of a version, or adds one that cannot be read."""
    before = {} if state.emergencies is None else state.emergencies.document.targets
    view = TrustedView(registry, root=state.root, targets=state.targets, releases=state.releases, emergencies=document)
    if any(document.targets.get(path) != listed for path, listed in before.items()):
        raise TrustError(
            f"Metadata refused: {name} leaves out or changes a version that the break-glass key had listed. The key "
            "was used by something else than Liftgate; remove that object, and the key with `liftgate keys rotate "
            "--no-break-glass`."
        )
    for path in set(document.targets) - set(before):
        view.version(int(path.removeprefix("versions/").removesuffix(".json")))


def check_listed_emergency(state: SignedState, record: ReleaseRecord) -> None:
    """Refuse to make a release of a version that hosts would not find: its key was changed a moment ago.

    Raises:
        LostRaceError: no list has the version.
    """
    if not record.is_emergency:
        return
    path = f"versions/{record.stable:06d}.json"
    listed = {} if state.emergencies is None else state.emergencies.document.targets
    if path not in listed and path not in state.targets.targets:
        raise LostRaceError(f"{path} is listed no more: the break-glass key was changed. Break the glass again.")
