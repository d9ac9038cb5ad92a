"""How AWS and stores like it are reached from this machine: the standard chain, without a client.

obstore knows environment variables and the credentials of web identities, containers and instances. What
it does not know is added here, from the files that the AWS tools share. Whether there are credentials at
all is settled before the first request, which else would wait for an instance's service that is not there.
"""

from __future__ import annotations

import configparser
import os
from collections.abc import Mapping
from urllib.parse import urlsplit

from mlless.errors import ChannelError, UsageError

_INSTANCE = "http://169.254.169.254"  # where an instance of EC2 asks for its credentials
_INSTANCE_DEADLINE = 1.0  # seconds, as the AWS tools wait
_GIVEN = (  # variables, each of which says that obstore finds credentials by itself, or needs none
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_SKIP_SIGNATURE",
)
_CONTAINER = ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI")
_KEYS = {  # names in the shared files, and what obstore calls them
    "aws_access_key_id": "access_key_id",
    "aws_secret_access_key": "secret_access_key",
    "aws_session_token": "session_token",
}
_SIGNS_IN = ("role_arn", "sso_session", "sso_start_url", "login_session")
_NO_CREDENTIALS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run aws configure"


def aws_settings(environment: Mapping[str, str], where: str) -> dict[str, str]:
    """Return the settings for obstore's S3 client that the environment does not give it, by obstore's keys.

    ChannelError if there are no credentials, UsageError if the end point is no URL. ``where`` is the place
    that they are for, which the errors name.
    """
    profile = _profile(environment, where)
    settings = {}
    endpoint = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL")
    if endpoint := endpoint or environment.get("AWS_ENDPOINT") or profile.get("endpoint_url"):
        if not endpoint.startswith(("http://", "https://")):
            raise UsageError(
                "not the end point of an object store",
                expected="http://HOST or https://HOST in AWS_ENDPOINT_URL",
                found=endpoint,
            )
        settings["endpoint"] = endpoint
    region = environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION") or profile.get("region")
    if region:
        settings["region"] = region
    if any(environment.get(name) for name in _GIVEN) or _signs_in(profile):
        return settings
    if "aws_access_key_id" in profile:
        return settings | {name: profile[key] for key, name in _KEYS.items() if key in profile}
    if any(environment.get(name) for name in _CONTAINER):
        return settings
    return settings | {"metadata_endpoint": _instance(environment, where)}


def signs_in(environment: Mapping[str, str], where: str) -> bool:
    """Return whether credentials are those of a profile that has to get them: see ``aws_session``."""
    given = any(environment.get(name) for name in _GIVEN)
    return not given and _signs_in(_profile(environment, where))


def _signs_in(profile: Mapping[str, str]) -> bool:
    # In the order of the AWS tools: keys come after a role and a sign-in, a program after keys.
    if any(name in profile for name in _SIGNS_IN):
        return True
    return "credential_process" in profile and "aws_access_key_id" not in profile


def _profile(environment: Mapping[str, str], where: str) -> dict[str, str]:
    """Return what the shared files say of the profile in use."""
    name = environment.get("AWS_PROFILE") or "default"
    files = (
        (environment.get("AWS_CONFIG_FILE") or "~/.aws/config", f"profile {name}"),
        (environment.get("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials", name),
    )
    profile: dict[str, str] = {}
    for path, section in files:
        parser = configparser.ConfigParser(interpolation=None, default_section="", strict=False)
        try:
            parser.read(os.path.expanduser(path))
        except (configparser.Error, UnicodeDecodeError) as error:
            kind = type(error).__name__  # its text may quote a secret
            raise ChannelError("not a file of AWS settings", where=path, found=kind) from None
        for heading in (section, name):
            if parser.has_section(heading):
                profile |= parser[heading]
    if not profile and environment.get("AWS_PROFILE") and not environment.get("AWS_ACCESS_KEY_ID"):
        raise ChannelError(
            f"there is no AWS profile {name!r}",
            where=where,
            expected=f"it in {files[0][0]} or {files[1][0]}",
            cure="check AWS_PROFILE",
        )
    return profile


def _instance(environment: Mapping[str, str], where: str) -> str:
    """Return the address of the instance's credentials, once it has answered."""
    import http.client  # not for those who have their credentials already

    given = environment.get("AWS_METADATA_ENDPOINT") or environment.get("AWS_EC2_METADATA_SERVICE_ENDPOINT")
    address = urlsplit(given or _INSTANCE)
    cause = "switched off by AWS_EC2_METADATA_DISABLED"
    if environment.get("AWS_EC2_METADATA_DISABLED", "").lower() != "true":
        connection = http.client.HTTPConnection(
            address.hostname or "", address.port, timeout=_INSTANCE_DEADLINE
        )
        try:
            connection.request(
                "PUT", "/latest/api/token", headers={"X-aws-ec2-metadata-token-ttl-seconds": "60"}
            )
            status = connection.getresponse().status
            if status == http.HTTPStatus.OK:
                return address.geturl()
            cause = f"status {status}"
        except (OSError, http.client.HTTPException) as error:
            cause = str(error) or type(error).__name__
        finally:
            connection.close()
    raise ChannelError(
        "no credentials",
        where=where,
        expected="them in the environment, in a profile, or from the container or instance",
        found=f"none, and no instance's role ({cause})",
        cure=_NO_CREDENTIALS,
    )
