"""Shows a training as it goes: a live display on a terminal, plain lines anywhere else.

A listener is called for every step and so only notes things down; what is shown is put together
when it is shown, a few times a second at most.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from mlless.billing.amount import money
from mlless.job import JobSpec
from mlless.records import StepRecord
from mlless.report.account import functions_told
from mlless.report.course import Course, course_of, evaluated, events, lines, main
from mlless.report.output import silenced
from mlless.report.wording import count, duration, metrics, size

Listener = Callable[[StepRecord], None]

_REFRESH = 4.0  # a second
_WINDOW = 12  # refreshes over which steps a second are counted


@contextmanager
def progress(
    spec: JobSpec,
    console: Console | None = None,
    *,
    elapsed: float = 0.0,
    earlier: Iterable[StepRecord] = (),
    hint: str = "Ctrl-C ends the training and keeps the model",
) -> Iterator[Listener]:
    """Give the listener of a job whose course is shown on ``console``, or on standard output.

    It has run for the seconds ``elapsed``, with the steps ``earlier``. A ``hint`` says below a live display
    what one may do.
    """
    # A notebook sets FORCE_COLOR, but no cursor moves there: it gets plain lines.
    console = console or Console(
        file=silenced(sys.stdout), highlight=False, force_jupyter=False, force_terminal=sys.stdout.isatty()
    )
    course = course_of(spec, elapsed, earlier)
    if not console.is_terminal:
        plain = _Plain(course, console)
        yield plain.hear
        return
    display = _Display(course, console, hint)
    with Live(get_renderable=display.render, console=console, refresh_per_second=_REFRESH, transient=True):
        yield display.hear


class _Plain:
    """One line an evaluation."""

    def __init__(self, course: Course, console: Console) -> None:
        self._course, self._console = course, console

    def hear(self, record: StepRecord) -> None:
        """Print what is to be told of a step."""
        for line in lines(self._course, record):
            self._console.print(Text(line), soft_wrap=True)


class _Display:
    """A line an evaluation, and below them where the job is right now."""

    def __init__(self, course: Course, console: Console, hint: str) -> None:
        self._course, self._console, self._hint = course, console, hint
        self._spinner = Spinner("dots")
        self._seen: deque[tuple[float, int, int]] = deque(maxlen=_WINDOW)
        self._billed: deque[tuple[float, float]] = deque(maxlen=_WINDOW)

    def hear(self, record: StepRecord) -> None:
        """Take in a step; print an evaluation and what else has happened."""
        if self._course.add(record):
            text = Text(evaluated(self._course, record))
            text.highlight_regex(r"best$", "green")
            self._console.print(text, soft_wrap=True)
        for line in events(record):
            self._console.print(Text(line), soft_wrap=True)

    def render(self) -> RenderableType:
        """Return where the job is right now."""
        course, record = self._course, self._course.last
        elapsed = duration(time.monotonic() - course.started)
        self._spinner.update(text=Text.assemble((course.phase, "bold"), (f"  {elapsed}", "dim")))
        if record is None:
            return self._spinner
        stop = course.spec.stop
        top = Table.grid(padding=(0, 2))
        where = f"epoch {record.epoch:.1f} of at most {stop.epochs}, step {count(record.step)}"
        top.add_row(self._spinner, ProgressBar(total=1.0, completed=course.fraction, width=28), where)
        facts = Table.grid(padding=(0, 1))
        facts.add_column(style="dim", min_width=9)
        facts.add_row("train", course.training)
        if course.best:
            best = f"best {main(course.best):.4f} at epoch {course.best_epoch:.1f}"
            facts.add_row("held out", f"{metrics(course.heldout)} ({best})")
        facts.add_row("workers", f"{record.workers}, {self._speed()}")
        totals = course.totals
        facts.add_row("traffic", f"published {size(totals.bytes_out)}, read {size(totals.bytes_in)}")
        if told := functions_told(totals.handovers, totals.lost):
            facts.add_row("functions", told)
        if record.cost is not None:
            budget = f" of at most {money(stop.max_cost)}" if stop.max_cost else ""
            facts.add_row("cost", f"{money(record.cost)}{budget}, {self._rate()}")
        facts.add_row("", Text(self._hint, "dim"))
        return Group("", top, facts)

    def _rate(self) -> str:
        """Return the dollars an hour over the last few refreshes, or from the start of a job just begun."""
        record = self._course.last
        assert record is not None
        self._billed.append((record.time, record.cost or 0.0))
        (then, before), (now, cost) = self._billed[0], self._billed[-1]
        seconds, dollars = (now - then, cost - before) if now > then else (now, cost)
        return f"{money(3600 * dollars / seconds)} an hour" if seconds > 0 else "- an hour"

    def _speed(self) -> str:
        """Return steps and samples a second over the last few refreshes."""
        now = time.monotonic(), self._course.steps, self._course.samples
        self._seen.append(now)
        seconds, steps, samples = (new - old for new, old in zip(now, self._seen[0], strict=True))
        if seconds <= 0:
            return "- steps/s"
        return f"{steps / seconds:,.0f} steps/s, {samples / seconds:,.0f} {self._course.thing}s/s"
