"""The documents that a decision rested on, into the bucket as blobs.

Its place in the flow: promotion stores them before the version that names their digests, so that
`liftgate trace` and an auditor can read years later why something was served.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from artifact_sync.canonical import sha256_hex
from artifact_sync.errors import InputError
from artifact_sync.registry import Registry
from validation.approvals.approval_records import SignedApproval
from validation.approvals.candidacy import Candidacy


def store_evidence(
    registry: Registry, candidacy: Candidacy, approvals: Iterable[SignedApproval], *, documents: Iterable[Path]
) -> None:
    """Store report, page, policy, verdict and approvals, and further documents that the verdict names.

    Args:
        registry: the model's part of the bucket.
        candidacy: the judged run.
        approvals: the approvals that count.
        documents: further files, such as holdout.json.

    Raises:
        InputError: a document is not one that the verdict names by digest.
        StoreError: the bucket cannot be used.
    """
    run, verdict = candidacy.run, candidacy.verdict
    named = {verdict.report_sha256, verdict.policy_sha256, verdict.holdout_sha256, candidacy.page_sha256}
    for path in (run.report_json, run.report_html, run.policy_json, *documents):
        data = path.read_bytes()
        sha256 = sha256_hex(data)
        if sha256 not in named:
            raise InputError(
                f"Evidence refused: {path} has the SHA-256 {sha256}, which the verdict on run {run.run_id} does not "
                "name. Hand over the documents that it was made of."
            )
        registry.put_blob(data, sha256=sha256)
    for record in (verdict, *approvals):
        registry.put_blob(record.to_json(), sha256=record.sha256)
