"""A parameter server as a process of its own, which ends with the process that has started it."""

from __future__ import annotations

import contextlib
import os
import secrets
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from mlless import kernels
from mlless.baselines.parameters import ParameterServer, largest
from mlless.channels.answering import LOOPBACK, Asking, listen, serve
from mlless.errors import DeadlineExceeded, JobError
from mlless.job import JobSpec
from mlless.local import begin
from mlless.models import model_of
from mlless.runtimes.hosted import module_command
from mlless.runtimes.strays import TAG

_START, _DYING, _END = 60.0, 1.0, 10.0  # seconds to listen, to be gone if it dies, and if it is to end
_LONGEST = 64  # bytes of what it says


class Told(msgspec.Struct, frozen=True):
    """What the process is told: the job, how many pushes an epoch has, and the job's token."""

    spec: JobSpec
    epoch: int
    token: str


class Place(msgspec.Struct, frozen=True):
    """Where the server is, and what opens it; not to be shown."""

    port: int
    token: str

    def __repr__(self) -> str:
        return f"Place({self.port})"


def connect(place: Place, spec: JobSpec) -> Asking:
    """Return the way to the server of a job."""
    room = largest(model_of(spec.model).shapes)
    return Asking((LOOPBACK, place.port), place.token.encode(), largest=room, timeout=spec.deadlines.step)


class Serving:
    """The server as the one sees it that has started it."""

    def __init__(self, process: subprocess.Popen[bytes], place: Place, spec: JobSpec) -> None:
        self._process, self.place = process, place
        self.pid, self.way = process.pid, connect(place, spec)

    def fate(self) -> str:
        """Return what has become of a server that does not answer, in words; it is gone after that."""
        try:
            code = self._process.wait(_DYING)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return "it was there, and did not answer"
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


@contextmanager
def open_server(spec: JobSpec, epoch: int, job: str) -> Iterator[Serving]:
    """Start the server of a job, of which an epoch has so many pushes; at the end it is gone."""
    token = secrets.token_hex(16)
    process = subprocess.Popen(
        module_command(__name__),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, TAG: job, "MLLESS_KERNELS": kernels.NAME},
        start_new_session=True,  # a Ctrl-C in the terminal is for who leads the job
    )
    try:
        place = Place(_port(process, Told(spec, epoch, token)), token)
        serving = Serving(process, place, spec)
        try:
            yield serving
        finally:
            serving.way.close()
    finally:
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        process.stdout.close()
        try:
            process.wait(_END)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _port(process: subprocess.Popen[bytes], told: Told) -> int:
    """Tell the process what it is to do; return the port that it listens at."""
    assert process.stdin is not None
    assert process.stdout is not None
    until, said = time.monotonic() + _START, b""
    try:
        process.stdin.write(msgspec.json.encode(told) + b"\n")
        process.stdin.flush()
    except BrokenPipeError:
        pass  # it has nothing to say, either
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while not said.endswith(b"\n"):
            if not selector.select(max(0.0, until - time.monotonic())):
                raise DeadlineExceeded(f"the parameter server does not listen within {_START:g} s")
            data = os.read(process.stdout.fileno(), _LONGEST)
            if not data or len(said) > _LONGEST:
                raise JobError("the parameter server did not start", cure="its error is above")
            said += data
    return int(said)


def main() -> None:
    """Serve as standard input tells, until it is closed."""
    told = msgspec.json.decode(sys.stdin.buffer.readline(), type=Told)
    replica = begin(told.spec.model, told.spec.seed).replica
    server, listener = ParameterServer(told.spec, replica, told.epoch), listen()
    print(listener.getsockname()[1], flush=True)
    room = largest(model_of(told.spec.model).shapes)
    serve(listener, told.token.encode(), room, server.answer, sys.stdin.fileno())
