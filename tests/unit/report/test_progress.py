from __future__ import annotations

import io
import re
import time

import pytest
from rich.console import Console

from mlless.autotuner.decision import Decision
from mlless.billing.tariff import load_tariff
from mlless.job import Stop
from mlless.report.course import Course
from mlless.report.progress import progress


@pytest.fixture
def course(job):
    return Course(job())


def test_a_course_starts_trains_and_finishes(course, step):
    assert course.phase == "starting"
    assert course.fraction == 0.0
    course.add(step(0))
    assert course.phase == "training"
    course.add(step(1, loss=None))
    assert course.phase == "finishing"


def test_a_course_knows_the_best_and_when_it_was(course, step):
    assert course.add(step(0, heldout={"rmse": 1.0}))
    assert not course.add(step(1))
    assert course.add(step(5, heldout={"rmse": 0.8}))
    assert course.add(step(10, heldout={"rmse": 0.9}))
    assert course.heldout == {"rmse": 0.9}
    assert course.best == {"rmse": 0.8}
    assert course.best_epoch == pytest.approx(2 / 5)  # that of the step before, whose model it was
    assert course.samples == 80


def test_the_share_done_follows_epochs_or_time_whichever_is_ahead(job, step):
    course = Course(job(stop=Stop(epochs=4, max_time=2.0)))
    course.add(step(9, time=0.1))
    assert course.fraction == pytest.approx(0.5)
    course.add(step(9, time=1.5))
    assert course.fraction == pytest.approx(0.75)
    course.add(step(99, time=9.0))
    assert course.fraction == 1.0


def test_plain_lines_one_an_evaluation(job, step):
    file = io.StringIO()
    with progress(job(), Console(file=file, width=40)) as hear:
        for number in range(10):
            hear(step(number, heldout={"rmse": 1.0 - number / 10} if number % 5 == 0 else None))
    lines = file.getvalue().splitlines()
    assert lines == [
        "epoch   0.0  step      0  train rmse 1.0000  held-out rmse 1.0000  0.0 s  best",
        "epoch   1.0  step      5  train rmse 1.0000  held-out rmse 0.5000  0.5 s  best",
    ]


def test_plain_lines_without_held_out_rows(job, lr, step):
    file = io.StringIO()
    with progress(job(model=lr), Console(file=file)) as hear:
        hear(step(0, heldout={}))
    assert file.getvalue() == "epoch   0.0  step      0  train log_loss 1.0000  0.0 s\n"


def test_what_is_no_terminal_gets_plain_lines_whatever_is_forced(job, step, monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")  # as a notebook does
    with progress(job()) as hear:
        hear(step(0, heldout={"rmse": 1.0}))
    assert capsys.readouterr().out == (
        "epoch   0.0  step      0  train rmse 1.0000  held-out rmse 1.0000  0.0 s  best\n"
    )


def test_live_display_shows_where_the_job_is(job, step):
    file = io.StringIO()
    with progress(job(), Console(file=file, width=100, force_terminal=True)) as hear:
        hear(step(0, heldout={"rmse": 1.0}))
        hear(step(1))
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", file.getvalue())
    for words in ("starting", "epoch 0.4 of at most 4", "train     rmse 1.0000", "200 bytes", "steps/s"):
        assert words in shown


def test_live_display_shows_what_it_costs(job, step):
    file = io.StringIO()
    stop = Stop(epochs=4, max_cost=0.5)
    tariff = load_tariff("published-ibm")
    with progress(job(stop=stop, tariff=tariff), Console(file=file, width=100, force_terminal=True)) as hear:
        hear(step(0, cost=0.0123, time=10.0, heldout={"rmse": 1.0}))
    assert "$0.0123 of at most $0.500, $4.43 an hour" in file.getvalue()
    assert "held-out rmse 1.0000  10.0 s  $0.0123  best" in re.sub(r"\x1b\[[0-9;]*m", "", file.getvalue())


@pytest.mark.parametrize("terminal", [False, True])
def test_workers_that_are_to_leave_are_told(job, step, terminal):
    file = io.StringIO()
    gone = Decision(20, "leave", (3, 5), "they cost more than they bring", {})
    with progress(job(), Console(file=file, width=100, force_terminal=terminal)) as hear:
        hear(step(21, workers=6, decision=gone))
        hear(step(22, workers=6, decision=Decision(21, "stay", (), "all are needed", {})))
    assert "step     21  workers 3, 5 of 6 to leave: they cost more than they bring" in file.getvalue()
    assert "all are needed" not in file.getvalue()


def test_a_live_display_hears_of_a_step_in_next_to_no_time(job, step):
    file = io.StringIO()
    record, steps = step(1), 2000
    with progress(job(), Console(file=file, width=100, force_terminal=True)) as hear:
        before = time.process_time()
        for _ in range(steps):
            hear(record)
        spent = time.process_time() - before
    assert spent / steps < 200e-6  # measured: 2 microseconds


def test_the_display_is_gone_when_the_job_fails(job):
    file = io.StringIO()
    console = Console(file=file, force_terminal=True)
    with pytest.raises(RuntimeError), progress(job(), console):
        raise RuntimeError
    assert file.getvalue().count("\x1b[?25h") == 1  # the cursor is back
