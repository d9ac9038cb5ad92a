"""Profiles of AWS that get their credentials: by a role, a program, or a sign-in."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from servers.aws import ROLE, Aws

import mlless
from mlless.channels import aws_session
from mlless.channels.remote_objects import RemoteObjects
from mlless.data.dataset import Dataset
from mlless.data.synthetic import write_ratings
from mlless.errors import ChannelError, UsageError
from mlless.locations import Prefix


@pytest.fixture
def profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Write the files of a home of the test's own, and use the profile ``trainer``."""
    pytest.importorskip("botocore", reason="pip install 'mlless[aws]'")
    for name, file in (("AWS_CONFIG_FILE", "config"), ("AWS_SHARED_CREDENTIALS_FILE", "credentials")):
        monkeypatch.setenv(name, str(tmp_path / file))
    monkeypatch.setenv("AWS_PROFILE", "trainer")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")

    def write(config: str, credentials: str = "") -> None:
        (tmp_path / "config").write_text(f"[profile trainer]\nregion = us-east-1\n{config}")
        (tmp_path / "credentials").write_text(credentials)

    write("")
    aws_session._credentials.cache_clear()
    yield write
    aws_session._credentials.cache_clear()


def keys_of(aws: Aws) -> str:
    return f"[me]\naws_access_key_id = {aws.key}\naws_secret_access_key = {aws.secret}\n"


def program(folder: Path, **said: object) -> str:
    """Return the setting of a program that says where credentials are."""
    (folder / "program.py").write_text(f"import json\nprint(json.dumps({said!r}))\n")
    return f"credential_process = {sys.executable} {folder}/program.py\n"


def session_keys(aws: Aws) -> dict[str, object]:
    """Return credentials of the role, as a program or a sign-in would be given them."""
    given = aws.client("sts").assume_role(RoleArn=ROLE, RoleSessionName="test")["Credentials"]
    return {name: given[name] for name in ("AccessKeyId", "SecretAccessKey", "SessionToken")}


def test_a_role_is_assumed_for_a_data_set_a_job_and_its_run(
    aws: Aws, profile: Callable[..., None], tmp_path: Path
) -> None:
    profile(f"role_arn = {ROLE}\nsource_profile = me\n", keys_of(aws))
    write_ratings(tmp_path / "ratings.csv", users=200, items=100, rows=8000, seed=1)
    place = f"s3://{aws.bucket}"
    dataset: Dataset = mlless.partition(tmp_path / "ratings.csv", f"{place}/data")
    run = mlless.train(dataset, out=f"{place}/run", workers=2, epochs=1, verbose=False)
    assert run.summary.stop_reason == "epochs"
    scored = mlless.evaluate(f"{place}/run", f"{place}/data")
    assert scored["rmse"] == pytest.approx(run.summary.heldout["rmse"])


def test_the_user_alone_has_no_permission(aws: Aws, profile: Callable[..., None]) -> None:
    profile("", keys_of(aws).replace("[me]", "[trainer]"))
    with pytest.raises(ChannelError, match="no permission"):
        RemoteObjects(Prefix("s3", aws.bucket, "x")).get("a")


def test_a_program_says_the_credentials(aws: Aws, profile: Callable[..., None], tmp_path: Path) -> None:
    profile(program(tmp_path, Version=1, **session_keys(aws)))
    objects = RemoteObjects(Prefix("s3", aws.bucket, "x"))
    objects.put("a", b"stored")
    assert objects.get("a") == b"stored"


def test_keys_of_a_profile_come_before_its_program(
    aws: Aws, profile: Callable[..., None], tmp_path: Path
) -> None:
    own = session_keys(aws)
    profile(
        program(tmp_path, Version=1, AccessKeyId="wrong", SecretAccessKey="wrong"),
        f"[trainer]\naws_access_key_id = {own['AccessKeyId']}\naws_secret_access_key = "
        f"{own['SecretAccessKey']}\naws_session_token = {own['SessionToken']}\n",
    )
    assert RemoteObjects(Prefix("s3", aws.bucket, "x")).names() == set()


@pytest.fixture
def portal(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A portal of the sign-in, which gives the credentials of the role; the tokens that it was shown."""
    given, shown = session_keys(aws), list[str]()

    class Portal(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            shown.append(self.headers["x-amz-sso_bearer_token"])
            names = {"AccessKeyId": "accessKeyId", "SecretAccessKey": "secretAccessKey"}
            body = {names.get(name, "sessionToken"): value for name, value in given.items()}
            later = datetime.now(UTC) + timedelta(hours=1)
            body["expiration"] = int(later.timestamp() * 1000)
            data = json.dumps({"roleCredentials": body}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Portal) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        monkeypatch.setenv("AWS_ENDPOINT_URL_SSO", f"http://127.0.0.1:{server.server_port}")
        yield shown
        server.shutdown()
        thread.join()


SIGN_IN = """sso_session = ours
sso_account_id = 123456789012
sso_role_name = trainer
[sso-session ours]
sso_start_url = https://ours.awsapps.com/start
sso_region = us-east-1
"""


def sign_in(home: Path, until: datetime) -> None:
    """Leave what aws sso login leaves."""
    cache = home / ".aws" / "sso" / "cache"
    cache.mkdir(parents=True)
    token = {"accessToken": "the-token", "expiresAt": until.strftime("%Y-%m-%dT%H:%M:%SZ")}
    token |= {"startUrl": "https://ours.awsapps.com/start", "region": "us-east-1"}
    (cache / f"{hashlib.sha1(b'ours').hexdigest()}.json").write_text(json.dumps(token))


def test_a_sign_in_gives_the_credentials(
    aws: Aws, portal: list[str], profile: Callable[..., None], tmp_path: Path
) -> None:
    profile(SIGN_IN)
    sign_in(tmp_path, datetime.now(UTC) + timedelta(hours=8))
    # In a process of its own: botocore looks for the home when it is imported.
    code = f"""
from mlless.channels.remote_objects import RemoteObjects
from mlless.locations import Prefix
place = Prefix("s3", {aws.bucket!r}, "x")
RemoteObjects(place).put("a", b"stored")
assert RemoteObjects(place).get("a") == b"stored"
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60.0)
    assert portal == ["the-token"]  # one sign-in serves all


@pytest.mark.parametrize("hours", [-1, None])
def test_who_has_not_signed_in_is_told_how(
    profile: Callable[..., None], tmp_path: Path, hours: int | None
) -> None:
    profile(SIGN_IN)
    if hours is not None:
        sign_in(tmp_path, datetime.now(UTC) + timedelta(hours=hours))
    with pytest.raises(ChannelError, match=r"s3://b/x: the profile gives no credentials.*aws sso login"):
        RemoteObjects(Prefix("s3", "b", "x"))


def test_a_program_that_fails_is_told(profile: Callable[..., None]) -> None:
    profile("credential_process = /bin/false\n")
    with pytest.raises(ChannelError, match="the profile gives no credentials"):
        RemoteObjects(Prefix("s3", "b", "x"))


def test_without_the_client_the_package_is_named(
    profile: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    profile("credential_process = /bin/false\n")
    monkeypatch.setitem(sys.modules, "botocore.exceptions", None)
    with pytest.raises(UsageError, match=r"pip install 'mlless\[aws\]'"):
        RemoteObjects(Prefix("s3", "b", "x"))
