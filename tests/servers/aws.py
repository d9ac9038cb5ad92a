"""AWS's S3, IAM and STS as moto plays them, with signatures and permissions checked."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from servers.need import missing

ROLE = "arn:aws:iam::123456789012:role/trainer"


@dataclass(frozen=True)
class Aws:
    """An AWS of the test's own: a bucket, a role that may use it, and a user who may assume the role."""

    endpoint: str
    key: str
    secret: str
    bucket: str

    def client(self, service: str) -> Any:
        import boto3

        keys = {"aws_access_key_id": self.key, "aws_secret_access_key": self.secret}
        return boto3.Session().client(service, endpoint_url=self.endpoint, region_name="us-east-1", **keys)


def _policy(action: str) -> str:
    statement = {"Effect": "Allow", "Action": action, "Resource": "*"}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Aws]:
    """An AWS whose every request is checked."""
    try:
        from moto.core.authorization import enable_iam_authentication
        from moto.server import ThreadedMotoServer
    except ImportError:
        missing("moto", "pip install 'moto[s3]' flask flask-cors")
    for name in (
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_PROFILE",
        "AWS_REGION",
    ):
        monkeypatch.delenv(name, raising=False)
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        reset = urllib.request.Request(f"{endpoint}/moto-api/reset", method="POST")
        urllib.request.urlopen(reset, timeout=30.0).close()
        anyone = Aws(endpoint, "x", "x", "training")
        anyone.client("s3").create_bucket(Bucket=anyone.bucket)
        iam = anyone.client("iam")
        iam.create_user(UserName="me")
        iam.put_user_policy(UserName="me", PolicyName="p", PolicyDocument=_policy("sts:AssumeRole"))
        key = iam.create_access_key(UserName="me")["AccessKey"]
        iam.create_role(RoleName="trainer", AssumeRolePolicyDocument=_policy("sts:AssumeRole"))
        iam.put_role_policy(RoleName="trainer", PolicyName="p", PolicyDocument=_policy("s3:*"))
        with enable_iam_authentication():
            yield Aws(endpoint, key["AccessKeyId"], key["SecretAccessKey"], anyone.bucket)
    finally:
        server.stop()
