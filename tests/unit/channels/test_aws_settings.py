"""Where credentials, region and end point come from."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlless.channels.aws_settings import aws_settings, signs_in
from mlless.errors import ChannelError, UsageError

KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "hush"}
CREDENTIALS = """[default]
aws_access_key_id = a
aws_secret_access_key = b%c
[work]
aws_access_key_id = d
aws_secret_access_key = e
aws_session_token = f
"""
CONFIG = """[default]
region = eu-west-1
s3 =
    max_concurrent_requests = 20
[profile work]
region = eu-north-1
endpoint_url = https://minio
[profile signs-in]
sso_session = me
"""


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "credentials").write_text(CREDENTIALS)
    (tmp_path / "config").write_text(CONFIG)
    return {
        "AWS_CONFIG_FILE": str(tmp_path / "config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def test_the_default_profile(files: dict[str, str]) -> None:
    assert aws_settings(files, "s3://b") == {
        "region": "eu-west-1",
        "access_key_id": "a",
        "secret_access_key": "b%c",
    }


def test_another_profile(files: dict[str, str]) -> None:
    assert aws_settings({**files, "AWS_PROFILE": "work"}, "s3://b") == {
        "endpoint": "https://minio",
        "region": "eu-north-1",
        "access_key_id": "d",
        "secret_access_key": "e",
        "session_token": "f",
    }


def test_the_environment_comes_first(files: dict[str, str]) -> None:
    given = {**files, **KEYS, "AWS_REGION": "r", "AWS_ENDPOINT_URL": "http://x", "AWS_PROFILE": "work"}
    assert aws_settings(given, "s3://b") == {"region": "r", "endpoint": "http://x"}  # obstore reads the keys


@pytest.mark.parametrize("name", ["AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_SKIP_SIGNATURE"])
def test_what_the_client_finds_by_itself(files: dict[str, str], name: str) -> None:
    assert "access_key_id" not in aws_settings({**files, name: "x"}, "s3://b")


def test_a_container_comes_after_the_profile(files: dict[str, str]) -> None:
    container = {**files, "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://169.254.170.23/"}
    assert aws_settings(container, "s3://b")["access_key_id"] == "a"
    assert "access_key_id" not in aws_settings({**container, "AWS_SHARED_CREDENTIALS_FILE": "/x"}, "s3://b")


def test_what_is_missing_is_told(files: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "broken").write_text("aws_secret_access_key = hush\n")
    none = {**files, "AWS_CONFIG_FILE": "/x", "AWS_SHARED_CREDENTIALS_FILE": "/x"}
    for given, message in (
        (none, "s3://b: no credentials.*aws configure"),
        ({**files, "AWS_PROFILE": "nobody"}, "there is no AWS profile 'nobody'.*AWS_PROFILE"),
        ({**files, "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "broken")}, "broken: not a file of AWS"),
    ):
        with pytest.raises(ChannelError, match=message) as caught:
            aws_settings(given, "s3://b")
        assert "hush" not in str(caught.value)


def test_a_profile_that_signs_in_has_no_keys(files: dict[str, str]) -> None:
    given = {**files, "AWS_PROFILE": "signs-in"}
    assert aws_settings(given, "s3://b") == {}
    assert signs_in(given, "s3://b")
    assert not signs_in({**given, **KEYS}, "s3://b")  # the environment comes first
    assert not signs_in(files, "s3://b")


@pytest.mark.parametrize("wrong", ["127.0.0.1:9000", "minio.internal", "s3://host"])
def test_an_end_point_is_a_url(wrong: str) -> None:
    with pytest.raises(UsageError, match=r"AWS_ENDPOINT_URL, found"):
        aws_settings({**KEYS, "AWS_ENDPOINT_URL": wrong}, "s3://bucket")
