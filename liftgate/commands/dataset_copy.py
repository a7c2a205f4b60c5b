"""`liftgate dataset copy`: a dataset goes to a bucket, or comes back."""

from __future__ import annotations

from pathlib import Path

import click

from liftgate.composition import Site
from liftgate.output import json_option, print_result
from liftgate.progress import counting


@click.command("copy")
@click.argument("source")
@click.argument("target")
@json_option
@click.pass_obj
def command(config_path: Path | None, source: str, target: str, as_json: bool) -> None:
    """Copy a dataset from a folder to s3://bucket/prefix, or back.

    Every file is compared with the data manifest, which is written last. A copy that was interrupted goes
    on where it stopped; copying again what is there does nothing. Training hosts stream from the bucket:
    `liftgate train --data s3://bucket/prefix`.
    """
    from training_cluster.inputs.dataset_copy import copy_dataset

    store = Site.load(config_path).settings.store
    with counting("copying MB") as show:
        report = copy_dataset(
            source,
            target,
            endpoint_url=store.endpoint_url if store else None,
            region=store.region if store else None,
            progress=lambda done, total: show(done // 1_000_000, total // 1_000_000),
        )
    text = (
        f"{target}: {report.size_bytes / 1e6:.1f} MB in {report.copied + report.kept + 1} files, "
        f"{report.kept} of them were there already\ndata manifest {report.manifest_sha256}"
    )
    document = {
        "sha256": report.manifest_sha256,
        "copied": report.copied,
        "kept": report.kept,
        "size_bytes": report.size_bytes,
    }
    print_result(text, document, as_json=as_json)
