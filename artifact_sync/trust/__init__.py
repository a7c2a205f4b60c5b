"""Trust: nothing in the bucket is believed but what the holders of the keys have signed.

Its place in the flow: hosts read through `TrustedReader`; the promoting machine writes through
`Publisher`; keys come from `KeyFile`; `initialise_trust` and `rotate_trust` say who may sign what.
The wire format is The Update Framework's (python-tuf), and none of it leaves this package.
"""

from __future__ import annotations

from artifact_sync.trust.ceremony import initialise_trust, rotate_trust
from artifact_sync.trust.keys import KeyFile
from artifact_sync.trust.publisher import Publisher
from artifact_sync.trust.reader import TrustedReader

__all__ = ["KeyFile", "Publisher", "TrustedReader", "initialise_trust", "rotate_trust"]
