"""The process behind a detached job: it starts the supervisor, or calls it as a function.

If that is killed, it starts another one.

It is nobody's child, in a session without a terminal. Its order comes from its standard input; a signal that
asks it to end goes to the supervisor, which ends in order. A supervisor that is killed is followed by one
that resumes the run, as long as that brings the job on: the limits are those of workers.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import msgspec

from mlless.channels.opening import open_objects
from mlless.detached.function import append_log, call
from mlless.detached.order import Answer, Order
from mlless.errors import JobError, MLLessError
from mlless.locations import Directory, Place, place_of
from mlless.losses import Losses
from mlless.report.history import Following, that_count
from mlless.report.lock import GUARD, locked
from mlless.report.underway import STOP, Detached, read_underway, write_underway
from mlless.runtimes.hosted import module_command

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_ME = 0  # the only supervisor


def main(told: str, log: str) -> None:
    """Run the job that standard input tells of, and say on the descriptor ``told`` when it is under way.

    Standard output goes into the file ``log``.
    """
    data = sys.stdin.buffer.read()
    if os.fork():
        os._exit(0)  # the caller has waited for this one alone
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    order = msgspec.json.decode(data, type=Order)
    run = place_of(order.out)
    try:
        with locked(run, GUARD):
            try:
                _Guardian(run, order, int(told)).run()
            except MLLessError as error:
                print(f"error: {error.as_typed}", flush=True)
                _tell(int(told), Answer(error.exit_code, error.as_typed))
    except MLLessError as error:  # nothing has begun, and the log may be that of another job
        _tell(int(told), Answer(error.exit_code, error.as_typed))
    finally:
        if not isinstance(run, Directory):
            with suppress(MLLessError):  # then it stays on this machine
                append_log(run, Path(log).read_text(), anew=not order.is_for_a_function)
                os.unlink(log)


def _tell(told: int, answer: Answer) -> None:
    with suppress(OSError):  # whoever waited is gone
        os.write(told, msgspec.json.encode(answer) + b"\n")


class _Guardian:
    """Sees to it that a supervisor is there until the job is over.

    It holds ``told`` until its end, so that who hears of a failure can wait until all is gone.
    """

    def __init__(self, run: Place, order: Order, told: int) -> None:
        self._run, self._order, self._told = run, order, told
        self._losses, self._reached = Losses(1), -1
        self._supervisor: subprocess.Popen[bytes] | None = None
        self._asked = False
        for number in _SIGNALS:
            signal.signal(number, self._pass_on)

    def run(self) -> None:
        """Return when the job is over, or is given up."""
        while (why := self._supervise()) is not None:
            self._note(why)
            if self._asked or STOP in open_objects(self._run).names():
                print("it was asked to end, so that it is not resumed", flush=True)
                return
            if self._losses.add(_ME, time.monotonic()):
                print("that was once too often", flush=True)
                return

    def _pass_on(self, number: int, frame: object) -> None:
        self._asked = True
        if self._supervisor is not None:
            self._supervisor.send_signal(number)

    def _supervise(self) -> str | None:
        """Run a supervisor to its end; return how it was lost, None if it was not."""
        if self._order.is_for_a_function:
            return self._call()
        told = str(self._told)
        self._supervisor = subprocess.Popen(
            module_command("mlless.detached.supervising", told), stdin=subprocess.PIPE, pass_fds=[self._told]
        )
        self._supervisor.communicate(msgspec.json.encode(self._order))
        code = self._supervisor.returncode
        if code >= 0 or read_underway(self._run) is None:
            return None  # it has told its end, of whatever kind; or no job was under way
        return f"died by signal {signal.Signals(-code).name}"

    def _call(self) -> str | None:
        """Call the supervisor as a function, and see to its end as ``_supervise`` does."""
        lost = call(self._order, partial(_tell, self._told), lambda: self._asked)
        job = read_underway(self._run)
        if lost is None or (job and job.detached and job.detached.number != self._order.number):
            return None  # it has come to its end, or has handed over
        if job is None:
            raise JobError("the supervisor was lost before the job was under way", found=lost)
        return f"was lost: {lost}"

    def _note(self, why: str) -> None:
        """Tell of a supervisor that was lost, in the log and in what the job says of itself."""
        job = read_underway(self._run)
        assert job is not None, "a job that is lost, but over"
        steps = that_count(Following(self._run, under_way=True).read())
        step = steps[-1].step if steps else 0
        if step > self._reached:
            self._reached = step
            self._losses.go_on()
        order = self._order
        loss = f"the supervisor, process {job.pid}, {why} after step {step}"
        print(loss, flush=True)
        losses = (*order.losses, loss)
        self._order = order = msgspec.structs.replace(order, losses=losses, number=order.number + 1)
        guardian = 0 if order.is_for_a_function else os.getpid()
        detached = Detached(guardian, order.log, losses, order.holder, order.number)
        write_underway(self._run, msgspec.structs.replace(job, detached=detached))
