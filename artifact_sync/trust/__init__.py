"""Trust: nothing in the bucket is believed but what the holders of the keys have signed.

Its place in the flow: hosts read through `TrustedReader`; the promoting machine writes through
`publisher.Publisher`; keys come from `KeyFile`; `ceremony.initialise_trust` and `rotate_trust` say who
may sign what. The wire format is The Update Framework's (python-tuf), and none of it leaves this package.
"""

from __future__ import annotations

from artifact_sync.trust.keys import KeyFile, SigningKey, passphrase_source
from artifact_sync.trust.reader import TrustedReader
from artifact_sync.trust.view import TrustedView

__all__ = ["KeyFile", "SigningKey", "TrustedReader", "TrustedView", "passphrase_source"]
