"""A detached supervisor: it does what ``mlless train`` does, or ``resume``, and prints it.

``main`` is that of its process. As a function of Lithops it is started by ``function.py``.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress

import msgspec

import mlless
from mlless.data.dataset import open_dataset
from mlless.detached.order import Answer, Order
from mlless.driver import plan_resume, run_job
from mlless.errors import MLLessError, UsageError
from mlless.locations import place_of
from mlless.records import RUNNING, StepRecord
from mlless.report.account import closing, opening
from mlless.report.course import course_of, lines
from mlless.report.left import Left, resuming
from mlless.report.output import lasting_output, plain_warnings
from mlless.report.underway import Detached
from mlless.run import Run

Tell = Callable[[Answer], None]


class _Ear:
    """Who waits for the job to be under way; hears one answer."""

    def __init__(self, descriptor: int) -> None:
        os.set_inheritable(descriptor, False)  # no worker is to hold it
        self._descriptor: int | None = descriptor

    def tell(self, answer: Answer) -> None:
        """Give the answer, unless one was given before."""
        if self._descriptor is not None:
            with suppress(OSError):  # whoever waited is gone
                os.write(self._descriptor, msgspec.json.encode(answer) + b"\n")
            os.close(self._descriptor)
            self._descriptor = None


def main(told: str) -> None:
    """Run the job that standard input tells of, and say on the descriptor ``told`` when it is under way."""
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=Order)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    ear = _Ear(int(told))
    with lasting_output(), plain_warnings(print):
        supervise(
            order, Detached(os.getppid(), order.log, order.losses, order.holder, order.number), ear.tell
        )


def supervise(order: Order, detached: Detached, tell: Tell, within: float | None = None) -> bool:
    """Lead the job to its end, of whatever kind; return whether it was suspended."""
    try:
        return _run(order, detached, tell, within).summary.stop_reason == RUNNING
    except MLLessError as error:
        text = "\n".join([error.as_typed, *getattr(error, "__notes__", [])])
        print(f"error: {text}")
        tell(Answer(error.exit_code, text))
    except KeyboardInterrupt:
        print("interrupted: stopped at once")
        tell(Answer(130, "stopped before it was under way"))
    except Exception as error:  # whoever waits for the answer is to see it
        traceback.print_exc(file=sys.stdout)
        tell(Answer(1, f"{type(error).__name__}: {error}. Its traceback is in {order.log}"))
    return False


def _run(order: Order, detached: Detached, tell: Tell, within: float | None) -> Run:
    print(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  mlless {mlless.__version__}, process {os.getpid()}")
    with ExitStack() as stack:
        left = _left(order, stack)
        if left is not None:
            planned = plan_resume(left, order.anew, order.dataset)
            spec, dataset, left = planned.spec, planned.dataset, planned.left
        else:
            assert order.job is not None, "neither a job nor a run to resume"
            spec, dataset = order.job, open_dataset(order.job.dataset)
        _say(opening(spec, order.deployment))
        course = course_of(spec, left.seconds if left else 0.0, left.records if left else ())

        def hear(record: StepRecord) -> None:
            """Print what is to be told of a step."""
            tell(Answer(0))
            for line in lines(course, record):
                print(line)

        run = run_job(
            spec,
            dataset,
            place_of(order.out),
            overwrite=order.overwrite or order.number > 0,
            listen=hear,
            deployment=order.deployment,
            detached=detached,
            left=left,
            within=within,
        )
    if run.summary.stop_reason == RUNNING:
        print(f"suspended after step {run.summary.steps - 1}: another supervisor goes on")
    else:
        _say(closing(run.summary, run.location))
    return run


def _left(order: Order, stack: ExitStack) -> Left | None:
    """Return what is left of the run, if it can be resumed.

    A run whose checkpoint is gone or damaged starts again.
    """
    if order.job is not None and not order.number:
        return None
    try:
        return stack.enter_context(resuming(order.out, holder=order.holder))
    except UsageError as error:
        if order.job is None:
            raise
        print(f"the job starts anew: {error.as_typed}")
        return None


def _say(lines: Iterable[tuple[str, str]]) -> None:
    for label, text in lines:
        print(f"{label:<10}{text}")
