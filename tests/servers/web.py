"""A web server of this machine, as plain as they come: no parts of files, no trouble, unless asked to."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


class WebServer(ThreadingHTTPServer):
    """Serves ``files`` by path; notes the ``requests``: method, path with query, range, credentials."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.requests: list[tuple[str, str, str | None, str | None]] = []
        self.ranges = False  # whether parts of files are served
        self.chunked = False  # whether files are sent without their size
        self.cut_at: int | None = None  # bytes after which a whole file breaks off

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: WebServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._serve(body=False)

    def do_GET(self) -> None:
        self._serve(body=True)

    def _serve(self, *, body: bool) -> None:
        served, wanted = self.server, self.headers.get("Range")
        served.requests.append((self.command, self.path, wanted, self.headers.get("Authorization")))
        data = served.files.get(self.path.partition("?")[0])
        if data is None:
            self.send_error(404)
            return
        start, stop = 0, len(data)
        if wanted and served.ranges:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, stop = int(first), min(int(last) + 1, len(data)) if last else len(data)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
            self.send_header("Accept-Ranges", "bytes")
        else:
            self.send_response(200)
        if served.ranges:
            self.send_header("ETag", '"a"')
        if served.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(stop - start))
        self.end_headers()
        if not body:
            return
        if served.chunked:
            self.wfile.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data))
        elif served.cut_at is not None and not start:
            self.wfile.write(data[: served.cut_at])
            self.close_connection = True
        else:
            self.wfile.write(data[start:stop])


@pytest.fixture
def web() -> Iterator[WebServer]:
    """A web server of its own."""
    with WebServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
