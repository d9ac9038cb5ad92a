"""Object store: S3 and those like it, Google Cloud Storage, Azure; web servers too. Through obstore."""

from __future__ import annotations

import base64
import io
import math
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, BinaryIO, cast
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotSupportedError, PreconditionError
from obstore.store import AzureStore, GCSStore, HTTPStore, S3Store

from mlless.channels.aws_settings import aws_settings, signs_in
from mlless.channels.ports import Bytes, Version
from mlless.errors import ChannelError, MissingObject, hidden
from mlless.locations import Prefix, WebFile

if TYPE_CHECKING:
    from obstore import GetResult, PutMode
    from obstore.store import ClientConfig, RetryConfig, S3Config

# A server that is busy gets some seconds. One that refuses to be reached is told of in as many, one that
# does not answer at all in half a minute.
_RETRY: RetryConfig = {
    "max_retries": 7,
    "retry_timeout": timedelta(seconds=40),
    "backoff": {
        "init_backoff": timedelta(milliseconds=200),
        "max_backoff": timedelta(seconds=4),
        "base": 2,
    },
}
# A request may take long, for a model may be large, but not without a byte coming for long.
_CLIENT: ClientConfig = {"connect_timeout": "3s", "read_timeout": "20s", "timeout": "10min"}
# What is read as a stream takes as long as what is done with it. If it breaks off then, it is taken up again.
_LONG = timedelta(days=7)
_PIECE = 1 << 18
_AROUND = 1 << 20  # read with what lies around it, where only a little is wanted
# From that size on in parts, of which each has to be sent within the read timeout.
_PART = 8 << 20
_PARTS_AT_ONCE = 4

_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_MESSAGE = re.compile(r"<Message>([^<]*)</Message>")
_ENDPOINT = re.compile(r"Error performing \w+ (https?://[^/\s]+)(\S*)")
_CAUSE = re.compile(r'(?:message|error): "([^"]*)"')
_IDENTITY = re.compile(
    r"latest/(?:api/token|meta-data)|metadata\.google|/metadata/identity|AssumeRole|oauth2"
)
_BUCKET_MISSING = {"NoSuchBucket", "ContainerNotFound"}
_KEY_REFUSED = {
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "InvalidToken",
    "TokenRefreshRequired",
    "RequestTimeTooSkewed",
    "AuthenticationFailed",
    "InvalidAuthenticationInfo",
}
_ELSEWHERE = {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}
_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the profile",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
    "http": "user and password in the address",
    "https": "user and password in the address",
}
_ENDPOINTS = {"s3": "AWS_ENDPOINT_URL and ", "http": "the address and ", "https": "the address and "}
_INCAPABLE = {  # what some servers do not do
    "Content-Length Header missing": "the server does not tell the size of the file",
    "Range request not supported": "the server does not serve parts of the file",
    "Received non-partial response": "the server does not serve parts of the file",
}


def writes_of(size: int) -> int:
    """Return how many requests it takes to store so many bytes."""
    return 1 if size <= _PART else 2 + math.ceil(size / _PART)


class RemoteObjects:
    """An ObjectStore below a prefix of a bucket.

    Credentials, region and end point are those of the environment, see docs/howto/object-store.md.
    """

    distant = True

    def __init__(self, prefix: Prefix | WebFile) -> None:
        """Open a prefix, or a file of a web server, whose path is empty."""
        self._prefix = prefix
        with self._told("open", ""):
            self._store = _opened(prefix, _CLIENT, _RETRY)

    @cached_property
    def _patient(self) -> S3Store | GCSStore | AzureStore | HTTPStore:
        """The same store for requests that take long."""
        client: ClientConfig = {**_CLIENT, "timeout": _LONG}
        return _opened(self._prefix, client, {**_RETRY, "retry_timeout": _LONG})

    def get(self, path: str) -> bytes:
        """Return the whole object."""
        with self._told("read", path):
            return bytes(obstore.get(self._store, path).bytes())

    def put(self, path: str, data: Bytes) -> None:
        """Store the object with one request, or in parts, of which none is seen before the last is there."""
        with self._told("write", path):
            if len(data) <= _PART:
                obstore.put(self._store, path, data, use_multipart=False)
            else:
                obstore.put(
                    self._store,
                    path,
                    data,
                    use_multipart=True,
                    chunk_size=_PART,
                    max_concurrency=_PARTS_AT_ONCE,
                )

    def get_version(self, path: str) -> tuple[bytes, Version]:
        """Return the object and its version."""
        with self._told("read", path):
            found = obstore.get(self._store, path)
            return bytes(found.bytes()), (found.meta["e_tag"], found.meta["version"])

    def put_version(self, path: str, data: Bytes, before: Version | None) -> bool:
        """Store the object if what is there is of that version; without condition where there are none."""
        mode: PutMode = "create"
        if before is not None:
            mode = {"e_tag": before[0]} if before[1] is None else {"e_tag": before[0], "version": before[1]}
        with self._told("write", path):
            try:
                obstore.put(self._store, path, data, mode=mode, use_multipart=False)
            except (AlreadyExistsError, PreconditionError):
                return False
            except BaseError as error:
                if not isinstance(error, NotSupportedError) and _first(_STATUS, str(error)) != "501":
                    raise
                obstore.put(self._store, path, data, use_multipart=False)
        return True

    def delete(self, paths: Iterable[str]) -> None:
        """Remove the objects, up to 1,000 with a request."""
        if wanted := list(paths):
            with self._told("delete", wanted[0]):
                obstore.delete(self._store, wanted)

    def names(self) -> set[str]:
        """Return the names that a listing up to the next slash gives."""
        with self._told("list", ""):
            found = obstore.list_with_delimiter(self._store)
        return {entry["path"] for entry in found["objects"]} | set(found["common_prefixes"])

    def below(self) -> Iterator[tuple[str, int]]:
        """Yield path and size of all objects, however deep; those of no name are left out."""
        with self._told("list", ""):
            for found in obstore.list(self._store):
                yield from ((entry["path"], entry["size"]) for entry in found if entry["path"])

    def size(self, path: str) -> int:
        """Return the size of the object."""
        with self._told("read", path):
            return obstore.head(self._store, path)["size"]

    def stream(self, path: str) -> tuple[int, Iterator[bytes]]:
        """Return the size of the object, and its bytes as they come; a connection that breaks is taken up."""
        with self._told("read", path):
            found = obstore.get(self._patient, path)
            return found.meta["size"], self._pieces(found, path)

    def head(self, path: str, length: int) -> bytes:
        """Return so many of the object's first bytes, or all; not every server serves parts."""
        first = b""
        for piece in self.stream(path)[1]:
            first += piece
            if len(first) >= length:
                break
        return first[:length]

    def _pieces(self, found: GetResult, path: str) -> Iterator[bytes]:
        with self._told("read", path):
            for piece in found.stream(min_chunk_size=_PIECE):
                yield bytes(piece)

    def file(self, path: str, size: int) -> BinaryIO:
        """Return the object, of that ``size``, as a file to read from anywhere."""
        return cast(BinaryIO, io.BufferedReader(_Ranges(self, path, size), _AROUND))

    def part(self, path: str, start: int, length: int) -> Bytes:
        """Return so many bytes of the object."""
        with self._told("read", path):
            return memoryview(obstore.get_range(self._store, path, start=start, length=length))

    @contextmanager
    def _told(self, doing: str, path: str) -> Iterator[None]:
        try:
            yield
        except (BaseError, OSError, ValueError) as error:
            # Not "from error": its text shows every part of the request, which may be signed.
            raise _explained(self._prefix, doing, path, str(error)) from None


class _Ranges(io.RawIOBase):
    """An object as a file: a request for every read."""

    def __init__(self, objects: RemoteObjects, path: str, size: int) -> None:
        super().__init__()
        self._objects, self._path, self._size, self._at = objects, path, size, 0

    def readable(self) -> bool:
        """Say that one may read from it."""
        return True

    def seekable(self) -> bool:
        """Say that one may read anywhere in it."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to an offset in bytes; return where that is from the start."""
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Fill ``buffer`` as far as there are bytes; return how many these are."""
        length = max(min(len(buffer), self._size - self._at), 0)
        if length:
            buffer[:length] = self._objects.part(self._path, self._at, length)
            self._at += length
        return length


def _opened(
    prefix: Prefix | WebFile, client: ClientConfig, retry: RetryConfig
) -> S3Store | GCSStore | AzureStore | HTTPStore:
    if isinstance(prefix, WebFile):
        return _web(prefix, client, retry)
    path = prefix.path or None
    if prefix.scheme == "gs":
        return GCSStore(prefix.bucket, prefix=path, client_options=client, retry_config=retry)
    if prefix.scheme == "az":
        return AzureStore(prefix.bucket, prefix=path, client_options=client, retry_config=retry)
    settings = aws_settings(os.environ, str(prefix))
    provider = None
    if signs_in(os.environ, str(prefix)):
        from mlless.channels.aws_session import session_credentials

        provider = session_credentials(os.environ.get("AWS_PROFILE"), str(prefix))
    plain = settings.get("endpoint", "").startswith("http://")  # only who writes it gets it
    return S3Store(
        prefix.bucket,
        prefix=path,
        config=cast("S3Config", settings),
        client_options={**client, "allow_http": plain},
        retry_config=retry,
        credential_provider=provider,
    )


def _web(file: WebFile, client: ClientConfig, retry: RetryConfig) -> HTTPStore:
    address = urlsplit(file.url)
    user, at, host = address.netloc.rpartition("@")
    if at:
        token = base64.b64encode(unquote(user).encode()).decode()
        client = {**client, "default_headers": {"Authorization": f"Basic {token}"}}
    url = address._replace(netloc=host, fragment="").geturl()
    client = {**client, "allow_http": address.scheme == "http"}
    return HTTPStore(url, client_options=client, retry_config=retry)


def _explained(prefix: Prefix | WebFile, doing: str, path: str, text: str) -> ChannelError:
    """Return what an error of obstore means; going by its text, for it carries no fields."""
    where = f"{prefix}/{path}" if path else str(prefix)
    bucket = f"{prefix.scheme}://{prefix.bucket}"
    told, _, details = text.partition("\n\nDebug source")
    code, status = _first(_CODE, told), _first(_STATUS, told)
    request = _ENDPOINT.search(told)
    found = _found(told, code, status, details)
    if incapable := next((cause for sign, cause in _INCAPABLE.items() if sign in told), None):
        return ChannelError(incapable, where=where, cure="save it to a file first")
    if request and _IDENTITY.search(request[0]):
        cure = f"set {_CREDENTIALS[prefix.scheme]}"
        return ChannelError("no credentials", where=where, found=found, cure=cure)
    if code in _BUCKET_MISSING or (status == "404" and doing != "read"):
        return ChannelError("there is no such bucket", where=bucket, found=found, cure="check its name")
    if status == "404":
        return MissingObject("no such object", where=where, found=found, cure="check bucket and key")
    if code in _KEY_REFUSED or status == "401":
        cure = f"check {_CREDENTIALS[prefix.scheme]}; temporary ones expire"
        return ChannelError("the credentials are not accepted", where=where, found=found, cure=cure)
    if code in _ELSEWHERE or ("redirect" in told and prefix.scheme == "s3"):
        cure = "set AWS_REGION to the bucket's region"
        return ChannelError("the bucket is in another region", where=bucket, found=found, cure=cure)
    if status == "403":
        cure = "allow it for this prefix; who may not list is told this of missing objects, too"
        return ChannelError(f"no permission to {doing}", where=where, found=found, cure=cure)
    if request and not status:
        cure = f"check {_ENDPOINTS.get(prefix.scheme, '')}the network"
        return ChannelError(f"cannot reach {request[1]} to {doing}", where=where, found=found, cure=cure)
    return ChannelError(f"cannot {doing}", where=where, found=found, cure=_cure(prefix, status, details))


def _cure(prefix: Prefix | WebFile, status: str, details: str) -> str:
    if status:
        return "try again later; the server itself says that it cannot"
    if "kind: Body" in details:
        return "try again; the connection broke off while it was read"
    return f"check {_CREDENTIALS[prefix.scheme]}, and what else is set for the object store"


def _found(told: str, code: str, status: str, details: str) -> str:
    message = _first(_MESSAGE, told)
    if code:
        return f"{code} ({message.rstrip('.')})" if message else code
    if status:
        return f"status {status}"
    short = _first(_CAUSE, details) or ("nothing within the time" if "Timeout" in details else "")
    return short or hidden(re.sub(r"\?\S+", "", told.splitlines()[0] if told else "an unknown error"))


def _first(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    return found[1] if found else ""
