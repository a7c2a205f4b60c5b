"""A front end under its real server, over a really signed bucket: `python tests/front_end_site.py FOLDER [METRICS]`.

Prints its address when it takes connections; METRICS is the address of its listener for metrics. The
model server is in the process and judges by colour; everything else is what `liftgate web` runs.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from signed_site import SignedSite

from artifact_sync.records import InputContract, RunRecord
from serving.model_server import ModelSignature, Prediction
from web.assembly import open_front_end
from web.server import serve
from web.settings import WebSettings

LABELS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


class PhotoSite(SignedSite):
    """The signed site with a model of ten classes."""

    def _run_record(self, run_id: str, trained_by: str) -> RunRecord:
        record = super()._run_record(run_id, trained_by)
        contract = InputContract(height=32, width=32, channels=3)
        return record.model_copy(update={"labels": LABELS, "input_contract": contract})


class ColourServer:
    """Answers for version 1 with scores that follow the mean colours; a red photo takes a second, and is noted."""

    def __init__(self, folder: Path) -> None:
        self._note = folder / "red-photo-asked"

    def predict(self, model, pixels, *, version=None, label=None, timeout_seconds=10.0):
        red, green, blue = pixels.reshape(-1, 3).mean(axis=0)
        if red > 200 > green:
            self._note.touch()
            time.sleep(1.0)
        weights = np.exp(np.arange(10) / 3 + np.array([blue, red, green, 40, 9, green, red, 8, blue, 3]) / 40)
        return Prediction((weights / weights.sum())[np.newaxis].astype(np.float32), 1)

    def signature(self, model, *, version=None, label=None):
        return ModelSignature(1, {}, {})


def main() -> None:
    folder = Path(sys.argv[1])
    site = PhotoSite(folder).initialise()
    site.promote(site.approved_run("run-001"))
    settings = WebSettings(
        port=0,
        data_dir=folder / "web",
        outbox_poll_seconds=0.1,
        max_upload_bytes=8 * 1024 * 1024,
        metrics_address=sys.argv[2] if len(sys.argv) > 2 else None,
    )
    serve(
        settings,
        lambda: open_front_end(
            settings,
            registry=site.registry,
            trusted=site.reader("web"),
            model_server=ColourServer(folder),
            shadow_server=ColourServer(folder),
        ),
        on_ready=lambda address: print(address, flush=True),
    )


if __name__ == "__main__":
    main()
