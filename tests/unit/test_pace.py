"""For how long a worker that is silent is waited for."""

from __future__ import annotations

import pytest

from mlless.job import Deadlines
from mlless.messages import Plan
from mlless.pace import FLOOR, Pace

PLAIN = Plan(9, (0, 1), 0, 5, 2)
EVALUATING = Plan(9, (0, 1), 0, 5, 2, evaluate=True)
FLUSHING = Plan(9, (0, 1), 0, 5, 2, flush=(1,))
LAST = Plan(9, (0, 1), 0, 5, 2, evaluate=True, last=True)
LIMITS = Deadlines()


def paced(*seconds: float, deadlines: Deadlines = LIMITS) -> Pace:
    pace = Pace(deadlines)
    for one in seconds:
        pace.add(PLAIN, one, 0.0)
    return pace


def test_nothing_is_usual_at_first() -> None:
    assert paced(0.1, 0.1).patience(PLAIN) == LIMITS.step
    assert paced(0.1, 0.1, 0.1).patience(PLAIN) == FLOOR


def test_it_is_ten_times_the_usual_step_within_limits() -> None:
    assert paced(60.0, 2.0, 2.0, 3.0, 2.0).patience(PLAIN) == 20.0
    assert paced(*[50.0] * 4).patience(PLAIN) == LIMITS.step
    assert paced(*[50.0] * 10, *[2.0] * 50).patience(PLAIN) == 20.0  # what was long ago is forgotten


def test_steps_that_close_together_where_a_slow_worker_catches_up_count_by_their_mean() -> None:
    pace = Pace(LIMITS, slack=2)
    for seconds in (6.0, 0.0, 0.0) * 4:
        pace.add(PLAIN, seconds, 0.0)
    assert pace.usual == pytest.approx(2.0)
    assert pace.patience(PLAIN) == pytest.approx(20.0)


def test_an_evaluation_has_time_of_its_own() -> None:
    pace = paced(2.0, 2.0, 2.0)
    pace.add(EVALUATING, 7.0, 5.0)
    assert pace.patience(PLAIN) == 20.0
    assert pace.patience(EVALUATING) == 70.0


@pytest.mark.parametrize("plan", [FLUSHING, LAST])
def test_steps_that_move_whole_models_have_a_fixed_time(plan: Plan) -> None:
    pace = paced(2.0, 2.0, 2.0)
    assert pace.patience(plan) == LIMITS.step
    pace.add(LAST, 100.0, 0.0)
    assert pace.patience(PLAIN) == 20.0


@pytest.mark.parametrize("plan", [PLAIN, EVALUATING, FLUSHING, LAST])
def test_what_was_asked_for_holds_for_all_steps(plan: Plan) -> None:
    assert paced(2.0, 2.0, 2.0, deadlines=Deadlines(silence=1.5)).patience(plan) == 1.5


def test_who_has_its_rows_to_read_has_a_fixed_time() -> None:
    assert paced(0.1, 0.1, 0.1).cold == LIMITS.step
    assert paced(0.1, 0.1, 0.1, deadlines=Deadlines(silence=1.5)).cold == 1.5


def test_what_is_usual_is_the_median_without_evaluations() -> None:
    assert paced().usual == 0.0
    pace = paced(1.0, 2.0)
    pace.add(EVALUATING, 7.0, 4.0)
    assert pace.usual == 2.0
    pace.add(LAST, 100.0, 0.0)  # nobody trained in it
    assert pace.usual == 2.0


def test_a_longer_step_may_take_as_many_times_as_long_until_such_steps_are_known() -> None:
    pace, longer = paced(9.0, 2.0, 2.0, 1.0), Plan(9, (0, 1), 2, 20, 0, length=8)
    pace.expect([longer])
    assert pace.usual == 16.0
    assert pace.patience(PLAIN) == pace.patience(longer) == 160.0
    for _ in range(4):
        pace.add(longer, 5.0, 0.0)
        pace.add(PLAIN, 0.5, 0.0)  # the short one that ends an epoch tells nothing of the others
    assert pace.usual == 5.0
    pace.expect([longer])
    pace.expect([PLAIN])
    assert pace.usual == 5.0
