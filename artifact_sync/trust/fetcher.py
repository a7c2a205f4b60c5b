"""How The Update Framework's client reads metadata out of the registry.

Its place in the flow: reader.py hands it to the client. Errors of the store pass through it as they
are: a bucket that cannot be reached is not an attack.
"""

from __future__ import annotations

from collections.abc import Iterator

from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient.fetcher import FetcherInterface

from artifact_sync.errors import NotFoundError
from artifact_sync.registry import Registry

METADATA_URL = "registry:///"

_CHUNK_BYTES = 16 * 1024


class RegistryFetcher(FetcherInterface):
    """Streams metadata files; the client stops reading at the length that a file may have.

    Attributes:
        file_name: the file that was asked for last, for messages.
    """

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.file_name = ""

    def _fetch(self, url: str) -> Iterator[bytes]:
        self.file_name = url.removeprefix(METADATA_URL)
        try:
            stream = self.registry.open_metadata(self.file_name)
        except NotFoundError as error:
            raise DownloadHTTPError(str(error), 404) from None
        with stream:
            while chunk := stream.read(_CHUNK_BYTES):
                yield chunk
