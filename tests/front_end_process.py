"""A front end under its real server: `python tests/front_end_process.py FOLDER SERVER METRICS`.

FOLDER has a signed bucket ("bucket") and the trusted root ("root.json"); SERVER is a model server's
address, METRICS that of the listener for metrics. Prints its address when it takes connections.
"""

from __future__ import annotations

import sys
from pathlib import Path

from artifact_sync.directory_store import DirectoryStore
from artifact_sync.registry import Registry
from artifact_sync.trust import TrustedReader
from serving.model_server import GrpcModelServer
from web.assembly import open_front_end
from web.server import serve
from web.settings import WebSettings


def main() -> None:
    folder, server_address, metrics_address = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    registry = Registry(DirectoryStore(folder / "bucket"), model="photos")
    trusted = TrustedReader(registry, metadata_dir=folder / "web-trust", root=(folder / "root.json").read_bytes())
    settings = WebSettings(
        port=0,
        data_dir=folder / "web",
        instance_name="front-1",
        catalog_refresh_seconds=0.2,
        metrics_address=metrics_address,
        shadow_max_waiting=1000,
        shadow_timeout_seconds=10.0,
    )
    serve(
        settings,
        lambda: open_front_end(
            settings,
            registry=registry,
            trusted=trusted,
            model_server=GrpcModelServer(server_address),
            shadow_server=GrpcModelServer(server_address),
        ),
        on_ready=lambda address: print(address, flush=True),
    )


if __name__ == "__main__":
    main()
