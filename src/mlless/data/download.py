"""A file from a web server to a folder: resumed where it broke off, with the standard library alone."""

from __future__ import annotations

import http.client
import re
import time
import urllib.error
import urllib.request
from http import HTTPStatus
from pathlib import Path
from typing import cast

from mlless.data.progress import ShowProgress
from mlless.data.staging import writing
from mlless.errors import ChannelError

BLOCK = 1 << 18
TIMEOUT = 30.0  # seconds without a byte
ATTEMPTS = 4
_PAUSE = 0.5  # seconds before the second attempt; doubled each time
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")
_HEADERS = {"User-Agent": "mlless", "Accept-Encoding": "identity"}
_UNREACHED = (OSError, http.client.HTTPException)  # URLError and timeouts are OSErrors


def read_small(url: str, limit: int = 1 << 16) -> bytes:
    """Return the first ``limit`` bytes at ``url``; ChannelError if it cannot be had."""
    try:
        with _opened(url, {}) as answer:
            return bytes(answer.read(limit))
    except _UNREACHED as error:
        raise _unreachable(url, error) from error


def download(url: str, path: Path, progress: ShowProgress) -> None:
    """Put the file at ``url`` into ``path``, and go on with ``path``.part if there is one.

    It goes on with a part only if the server says that the file has not changed since. The entity tag or the
    date of the part is kept beside it. A broken connection is tried again a few times. After that
    ChannelError is raised, and the part stays for the next time.
    """
    transfer = _Transfer(url, path, progress)
    failures = 0
    while True:
        try:
            transfer.go_on()
            return
        except _UNREACHED as error:
            # An attempt that brought something counts as the first. Who never answered is offline:
            # waiting helps no one.
            failures = 1 if transfer.gained else failures + 1
            if failures == ATTEMPTS or not transfer.may_change(error):
                raise _unreachable(url, error) from error
        time.sleep(_PAUSE * 2 ** (failures - 1))


class _Transfer:
    def __init__(self, url: str, path: Path, progress: ShowProgress) -> None:
        self.url, self.path, self.progress = url, path, progress
        self.part = path.with_name(path.name + ".part")
        self.tag = path.with_name(path.name + ".part.tag")
        self.reached, self.gained = False, False
        self.furthest = 0

    def go_on(self) -> None:
        """Fetch what is missing, then give the file its name."""
        self.gained = False
        have = self._have()
        headers = {"Range": f"bytes={have}-", "If-Range": self.tag.read_text()} if have else {}
        with _opened(self.url, headers) as answer:
            self.reached = True
            start, total = _extent(answer, have)
            tag = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
            # A weak tag does not promise the same bytes; without a promise there is no going on.
            with writing(self.tag):
                self.tag.write_text("" if tag.startswith("W/") else tag)
            with writing(self.part):
                file = self.part.open("ab" if start else "wb")
            with file:
                done = start
                while block := answer.read(BLOCK):
                    with writing(self.part):
                        file.write(block)
                    done += len(block)
                    if done > self.furthest:
                        self.furthest, self.gained = done, True
                    self.progress(min(done / total, 1.0) if total else 0.0, f"fetching {self.path.name}")
        if total is not None and done != total:
            raise http.client.IncompleteRead(b"", total - done)
        with writing(self.path):
            self.part.replace(self.path)
            self.tag.unlink()

    def may_change(self, error: Exception) -> bool:
        """Return whether another attempt may do better."""
        if isinstance(error, urllib.error.HTTPError):
            if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and self.part.exists():
                self.part.unlink()  # it is no beginning of what is there now
                return True
            return error.code >= HTTPStatus.INTERNAL_SERVER_ERROR
        return self.reached

    def _have(self) -> int:
        """Return how many bytes are there that can be gone on from."""
        if self.part.is_file() and self.tag.is_file() and self.tag.read_text():
            return self.part.stat().st_size
        return 0


def _opened(url: str, headers: dict[str, str]) -> http.client.HTTPResponse:
    if not url.startswith(("http://", "https://")):
        raise ChannelError("not a web address", where=url, expected="http:// or https://")
    request = urllib.request.Request(url, headers={**_HEADERS, **headers})  # noqa: S310 (checked above)
    return cast(http.client.HTTPResponse, urllib.request.urlopen(request, timeout=TIMEOUT))  # noqa: S310


def _extent(answer: http.client.HTTPResponse, have: int) -> tuple[int, int | None]:
    """Return from which byte the answer goes on, and how many the file has where that is known."""
    if answer.status == HTTPStatus.PARTIAL_CONTENT:
        found = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        if not found or int(found[1]) != have:
            raise http.client.HTTPException("a part was sent that was not asked for")
        return have, int(found[2])
    length = answer.headers.get("Content-Length")
    return 0, int(length) if length and length.isdigit() else None


def _unreachable(url: str, error: OSError | http.client.HTTPException) -> ChannelError:
    if isinstance(error, urllib.error.HTTPError):
        return ChannelError(
            "the server refuses", where=url, found=f"{error.code} {error.reason}", cure="try again later"
        )
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    return ChannelError(
        "cannot be reached",
        where=url,
        found=str(reason) or type(reason).__name__,
        cure="check the connection; the same command goes on where this one stopped",
    )
