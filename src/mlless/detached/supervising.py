"""The process of a detached supervisor: it does what ``mlless train`` does, or ``resume``, and logs it."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Iterable
from contextlib import ExitStack, suppress

import msgspec
from rich.console import Console

import mlless
from mlless.data.dataset import open_dataset
from mlless.detached.order import Answer, Order
from mlless.driver import plan_resume, run_job
from mlless.errors import MLLessError, UsageError
from mlless.locations import place_of
from mlless.records import StepRecord
from mlless.report.account import closing, opening
from mlless.report.left import Left, resuming
from mlless.report.output import lasting_output, silenced
from mlless.report.progress import progress
from mlless.report.underway import Detached


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
    with lasting_output():
        try:
            _run(order, ear)
        except MLLessError as error:
            text = "\n".join([str(error), *getattr(error, "__notes__", [])])
            print(f"error: {text}")
            ear.tell(Answer(error.exit_code, text))
        except KeyboardInterrupt:
            print("interrupted: stopped at once")
            ear.tell(Answer(130, "stopped before it was under way"))
        except Exception as error:
            traceback.print_exc()
            ear.tell(Answer(1, f"{type(error).__name__}: {error}. Its traceback is in {order.log}"))


def _run(order: Order, ear: _Ear) -> None:
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
        console = Console(
            file=silenced(sys.stdout), highlight=False, force_terminal=False, force_jupyter=False
        )
        elapsed, earlier = (left.seconds, left.records) if left else (0.0, ())
        display = stack.enter_context(progress(spec, console, elapsed=elapsed, earlier=earlier))

        def hear(record: StepRecord) -> None:
            ear.tell(Answer(0))
            display(record)

        run = run_job(
            spec,
            dataset,
            place_of(order.out),
            overwrite=order.overwrite or bool(order.losses),
            listen=hear,
            deployment=order.deployment,
            detached=Detached(os.getppid(), order.log, order.losses, order.holder),
            left=left,
        )
    _say(closing(run.summary, run.location))


def _left(order: Order, stack: ExitStack) -> Left | None:
    """Return what is left of the run, if it is to be resumed and can be.

    One whose checkpoint is gone, or damaged, starts anew.
    """
    if order.job is not None and not order.losses:
        return None
    try:
        return stack.enter_context(resuming(order.out, holder=order.holder))
    except UsageError as error:
        if order.job is None:
            raise
        print(f"the job starts anew: {error}")
        return None


def _say(lines: Iterable[tuple[str, str]]) -> None:
    for label, text in lines:
        print(f"{label:<10}{text}")
