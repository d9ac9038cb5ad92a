"""The process behind a detached job: it starts the supervisor, waits for its end, and tells if it was killed.

It is nobody's child, in a session without a terminal. Its order comes from its standard input; a signal that
asks it to end goes to the supervisor, which ends in order.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import msgspec

from mlless.channels.opening import open_objects
from mlless.detached.order import Order
from mlless.errors import MLLessError
from mlless.locations import Directory, Place, place_of
from mlless.report.history import Following, that_count
from mlless.report.lock import GUARD, locked
from mlless.report.underway import LOG, Detached, read_underway, write_underway
from mlless.runtimes.hosted import module_command


def main(told: str) -> None:
    """Run the job that standard input tells of, and say on the descriptor ``told`` when it is under way."""
    data = sys.stdin.buffer.read()
    if os.fork():
        os._exit(0)  # the caller has waited for this one alone
    order = msgspec.json.decode(data, type=Order)
    run = place_of(order.out)
    try:
        with locked(run, GUARD):
            _guard(run, data, int(told))
    except MLLessError as error:
        print(f"error: {error}", flush=True)
    finally:
        if not isinstance(run, Directory):
            with suppress(MLLessError):  # then it stays on this machine
                open_objects(run).put(LOG, Path(order.log).read_bytes())
                os.unlink(order.log)


def _guard(run: Place, order: bytes, told: int) -> None:
    code = _supervise(order, told)
    job = read_underway(run)
    if job is None or job.detached is None:
        return  # whoever comes to an end, of whatever kind, leaves none
    steps = that_count(Following(run, under_way=True).read())
    why = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    loss = f"the supervisor, process {job.pid}, died by {why} after step {steps[-1].step if steps else 0}"
    print(loss, flush=True)
    detached = Detached(job.detached.guardian, job.detached.log, (*job.detached.losses, loss))
    write_underway(run, msgspec.structs.replace(job, detached=detached))


def _supervise(order: bytes, told: int) -> int:
    """Return how a supervisor has ended: its exit code, or the negative number of a signal.

    This process holds ``told`` until its end, so that who hears of a failure can wait until all is gone.
    """
    process = subprocess.Popen(
        module_command("mlless.detached.supervising", str(told)), stdin=subprocess.PIPE, pass_fds=[told]
    )
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, _: process.send_signal(number))
    process.communicate(order)
    return process.returncode
