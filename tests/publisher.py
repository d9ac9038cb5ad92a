"""A web server that stands in for MovieLens' publisher: ranges, entity tags, and faults on request."""

from __future__ import annotations

import hashlib
import io
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def archive_of(members: dict[str, bytes]) -> bytes:
    """Return a zip archive."""
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return held.getvalue()


class Publisher:
    """What is published, and how the server behaves.

    ``breaks`` are the numbers of bytes after which the next answers to a GET of an archive break off.
    ``asked`` are path and Range of every request.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.breaks: list[int] = []
        self.statuses: list[int] = []
        self.asked: list[tuple[str, str | None]] = []
        self.ranges, self.tag = True, '"one"'
        self.url = ""

    def publish(self, name: str, members: dict[str, bytes]) -> bytes:
        """Publish an archive and its checksum, and return its bytes."""
        data = archive_of(members)
        self.files[f"/{name}.zip"] = data
        sum_ = hashlib.md5(data, usedforsecurity=False).hexdigest()
        self.files[f"/{name}.zip.md5"] = f"MD5 ({name}.zip) = {sum_}\n".encode()
        return data


@contextmanager
def publisher() -> Iterator[Publisher]:
    """Give a publisher that serves from a free port of this machine."""
    published = Publisher()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            published.asked.append((self.path, wanted))
            if published.statuses:
                self.send_error(published.statuses.pop(0))
                return
            if self.path not in published.files:
                self.send_error(404)
                return
            data, start = published.files[self.path], 0
            if wanted and published.ranges and self.headers.get("If-Range") == published.tag:
                start = int(wanted.removeprefix("bytes=").rstrip("-"))
                if start >= len(data):
                    self.send_error(416)
                    return
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            else:
                self.send_response(200)
            self.send_header("Content-Length", str(len(data) - start))
            self.send_header("ETag", published.tag)
            self.end_headers()
            body = data[start:]
            if self.path.endswith(".zip") and published.breaks:
                body = body[: published.breaks.pop(0)]
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            """Keep quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    published.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield published
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
