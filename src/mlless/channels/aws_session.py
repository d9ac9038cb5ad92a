"""Credentials of a profile that has none of its own: it signs in (SSO), assumes a role, or runs a program.

They come from the chain of botocore, AWS's own client, which also renews them. It is imported only for such a
profile (extra ``aws``).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from mlless.errors import ChannelError, hidden, not_installed

if TYPE_CHECKING:
    from obstore.store import S3Credential

# botocore renews credentials ten minutes before they expire at the latest: these are good for so long.
_GOOD_FOR = timedelta(minutes=5)
_CURE = "sign in with aws sso login, or try the profile with aws sts get-caller-identity"


def session_credentials(profile: str | None, where: str) -> Callable[[], S3Credential]:
    """Return what gives the credentials of a profile whenever it is called; ChannelError if there are none.

    ``where`` is the place that they are for.
    """
    try:
        from botocore.exceptions import BotoCoreError, ClientError
    except ModuleNotFoundError as error:
        what = "an AWS profile that signs in, assumes a role or runs a program"
        raise not_installed(what, "botocore", extra="aws") from error

    def give() -> S3Credential:
        """Return credentials that count now, in the form of the client of S3."""
        try:
            frozen = _credentials(profile).get_frozen_credentials()
        except (BotoCoreError, ClientError) as error:
            text = hidden(str(error))
            what = "the profile gives no credentials"
            raise ChannelError(what, where=where, found=text, cure=_CURE) from None
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": datetime.now(UTC) + _GOOD_FOR,
        }

    give()  # or the error that it is, before a request fails without a word of it
    return give


@lru_cache
def _credentials(profile: str | None) -> Any:
    """Return botocore's credentials of a profile: one sign-in serves all who ask."""
    import botocore.session

    return botocore.session.Session(profile=profile).get_credentials()
