from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from artifact_sync.directory_store import DirectoryStore
from artifact_sync.settings import StoreSettings, TrustSettings, open_store


def test_a_directory_url_opens_a_directory_store() -> None:
    store = open_store(StoreSettings(url="dir:/srv/bucket"))
    assert isinstance(store, DirectoryStore)
    assert store.root == Path("/srv/bucket")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("s3://models", "S3Store('s3://models/')"),
        ("s3://models/", "S3Store('s3://models/')"),
        ("s3://my.models-1/a/b_c", "S3Store('s3://my.models-1/a/b_c/')"),
        ("s3://models/a/", "S3Store('s3://models/a/')"),
    ],
)
def test_an_s3_url_opens_an_s3_store_without_contacting_it(url: str, shown: str) -> None:
    settings = StoreSettings(url=url, endpoint_url="https://127.0.0.1:1/", region="eu-central-1")
    assert repr(open_store(settings)) == shown


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("dir:relative/place", "is relative, so it would mean another place in each directory"),
        ("dir:", "is relative"),
        ("dir://host/place", "two slashes too many"),
        ("dir:/a/../b", r"has '\.\.' or a NUL"),
        ("/a/b", "of no known form"),
        ("file:///a", "of no known form"),
        ("S3://models", "of no known form"),
        ("s3://", "is not a bucket's name"),
        ("s3://Models", "is not a bucket's name"),
        ("s3://m", "is not a bucket's name"),
        ("s3://models\n", "is not a bucket's name"),
        ("s3://models//a", "is not plain names"),
        ("s3://models/a/../b", "is not plain names"),
        ("s3://models/.a", "is not plain names"),
        ("s3://models/a?b", "is not plain names"),
    ],
)
def test_a_url_that_names_no_store_is_refused_with_the_forms_that_do(url: str, words: str) -> None:
    with pytest.raises(ValidationError, match=words) as caught:
        StoreSettings(url=url)
    assert "dir:/" in str(caught.value)


def test_credentials_in_a_url_are_refused_and_not_repeated() -> None:
    with pytest.raises(ValidationError, match="must not hold credentials") as caught:
        StoreSettings(url="s3://KEY:SECRET@models")
    assert "SECRET" not in str(caught.value).partition("[type=")[0]
    with pytest.raises(ValidationError, match="a scheme, a host and a port only"):
        StoreSettings(url="s3://models", endpoint_url="https://KEY:SECRET@host")


@pytest.mark.parametrize("endpoint", ["host:9000", "ftp://host", "https://", "https://host/bucket", "https://host?x=1"])
def test_an_endpoint_that_is_no_address_is_refused(endpoint: str) -> None:
    with pytest.raises(ValidationError, match="endpoint_url"):
        StoreSettings(url="s3://models", endpoint_url=endpoint)


def test_unknown_settings_are_refused_and_known_ones_do_not_change() -> None:
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        StoreSettings(url="dir:/a", secret_key="x")
    with pytest.raises(ValidationError, match="frozen"):
        StoreSettings(url="dir:/a").url = "dir:/b"
    trust = TrustSettings(metadata_dir="/var/lib/liftgate/metadata", root_path="/etc/liftgate/root.json")
    assert trust.root_path == Path("/etc/liftgate/root.json")


def test_settings_and_a_directory_store_do_not_import_boto3() -> None:
    code = (
        "import sys; from artifact_sync.settings import StoreSettings, open_store; "
        "open_store(StoreSettings(url='dir:/a')); sys.exit('boto3' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
