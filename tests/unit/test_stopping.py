"""When a job stops, and which model is the best so far."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlless.job import Stop, Target
from mlless.stopping import DIVERGED, SMOOTHING, Choice, Progress, Score


def progress(**rules: object) -> Progress:
    return Progress(Stop(epochs=10, **rules), null_loss=0.0)  # type: ignore[arg-type]


@given(losses=st.lists(st.floats(0, 100), min_size=1, max_size=30))
def test_train_loss_is_the_exponential_average_from_the_first_step_on(losses: list[float]) -> None:
    course, average = progress(), losses[0]
    for loss in losses:
        course.add_step(loss)
    for loss in losses[1:]:
        average = (1 - SMOOTHING) * average + SMOOTHING * loss
    assert course.train_loss == pytest.approx(average, abs=1e-12)
    assert course.first_loss == losses[0]


@given(values=st.lists(st.floats(0, 10), min_size=1, max_size=20))
def test_best_is_the_lowest_held_out_value_and_the_first_of_equals(values: list[float]) -> None:
    course = progress()
    better = [course.add_evaluation(step, {"rmse": value, "other": 0.0}) for step, value in enumerate(values)]
    first = values.index(min(values))
    assert course.best == Score(first, {"rmse": values[first], "other": 0.0}, values[first])
    assert better == [value < min(values[:n], default=math.inf) for n, value in enumerate(values)]
    assert course.since_best == len(values) - 1 - first
    assert course.heldout == {"rmse": values[-1], "other": 0.0}


def test_a_gain_that_is_too_small_is_a_new_best_but_does_not_count_for_patience() -> None:
    course = progress(patience=2, least_gain=0.5)
    gains = []
    for step, value in enumerate((4.0, 3.5, 3.25, 3.125)):
        assert course.add_evaluation(step, {"rmse": value})
        gains.append((course.since_best, course.reason(evaluated=True)))
    assert course.best == Score(3, {"rmse": 3.125}, 3.125)
    assert gains == [(0, None), (0, None), (1, None), (2, "patience")]
    assert course.add_evaluation(4, {"rmse": 2.0})
    assert course.since_best == 0


def test_without_held_out_data_the_training_loss_stands_in() -> None:
    course = progress()
    assert course.add_evaluation(0, {})
    course.add_step(2.0)
    assert course.add_evaluation(5, {})
    assert course.best == Score(5, {}, 2.0)
    course.add_step(12.0)
    assert not course.add_evaluation(10, {})
    assert course.best == Score(5, {}, 2.0)


def test_a_start_that_is_not_a_number_is_not_the_best_for_ever() -> None:
    course = progress()
    course.add_evaluation(0, {"rmse": math.nan})
    assert course.add_evaluation(1, {"rmse": 1.0})
    assert course.best == Score(1, {"rmse": 1.0}, 1.0)
    assert not course.add_evaluation(2, {"rmse": math.nan})
    assert course.best == Score(1, {"rmse": 1.0}, 1.0)


class TestTarget:
    @pytest.mark.parametrize(
        ("metric", "value", "met"), [("rmse", 0.8, 0.8), ("log_loss", 0.4, 0.39), ("auc", 0.7, 0.7)]
    )
    def test_a_held_out_target_counts_when_evaluated(self, metric: str, value: float, met: float) -> None:
        course = progress(target=Target(metric=metric, value=value))  # type: ignore[arg-type]
        course.add_evaluation(0, {metric: 0.9 if metric != "auc" else 0.5})
        assert course.reason(evaluated=True) is None
        course.add_evaluation(1, {metric: met})
        assert course.reason(evaluated=False) is None
        assert course.reason(evaluated=True) == "target"

    def test_a_target_of_the_training_loss_counts_at_once(self) -> None:
        course = progress(target=Target(metric="train_loss", value=0.5))
        assert course.reason(evaluated=False) is None
        course.add_step(0.5)
        assert course.reason(evaluated=False) == "target"

    def test_a_metric_that_is_not_there_is_not_met(self) -> None:
        course = progress(target=Target(metric="auc", value=0.1))
        course.add_evaluation(0, {"rmse": 0.9})
        assert course.reason(evaluated=True) is None


class TestPatienceAndBudgets:
    def test_patience_counts_evaluations_without_a_new_best(self) -> None:
        course = progress(patience=2)
        reasons = []
        for step, value in enumerate([1.0, 0.9, 0.95, 0.8, 0.85, 0.8]):
            course.add_evaluation(step, {"rmse": value})
            reasons.append(course.reason(evaluated=True))
        assert reasons == [None, None, None, None, None, "patience"]
        assert course.reason(evaluated=False) is None

    def test_without_patience_the_job_goes_on(self) -> None:
        course = progress()
        for step in range(50):
            course.add_evaluation(step, {"rmse": 1.0 + step})
        assert course.reason(evaluated=True) is None

    def test_a_target_comes_before_a_budget_and_a_budget_before_patience(self) -> None:
        course = progress(target=Target(metric="rmse", value=0.5), patience=1)
        course.add_evaluation(0, {"rmse": 0.6})
        course.add_evaluation(1, {"rmse": 0.7})
        assert course.reason(evaluated=True, spent="time") == "time"
        assert course.reason(evaluated=False, spent="cost") == "cost"
        assert course.reason(evaluated=True) == "patience"
        course.add_evaluation(2, {"rmse": 0.5})
        assert course.reason(evaluated=True, spent="time") == "target"


class TestDiverged:
    def test_a_number_that_is_not_finite_is_divergence(self) -> None:
        course = progress()
        assert not course.diverged(finite=True)
        assert course.diverged(finite=False)
        course.add_step(math.nan)
        assert course.diverged(finite=True)

    def test_so_is_a_loss_far_above_the_first(self) -> None:
        course = progress()
        course.add_step(1.0)
        course.train_loss = DIVERGED
        assert not course.diverged(finite=True)
        course.train_loss = DIVERGED * 1.01
        assert course.diverged(finite=True)

    def test_a_first_loss_near_zero_leaves_room(self) -> None:
        course = Progress(Stop(epochs=10), null_loss=0.01)  # a first mini-batch without a click
        course.add_step(0.0)
        course.add_step(0.1)
        assert not course.diverged(finite=True)


class TestChoosing:
    @pytest.mark.parametrize(
        ("heldout", "restored"),
        [
            ({"rmse": 0.9}, True),
            ({"rmse": 0.7}, False),
            ({"rmse": math.nan}, True),
            ({}, False),
            (None, True),
        ],
    )
    def test_the_better_one_stays_and_what_is_not_a_number_never_does(self, heldout, restored):
        course = progress()
        course.add_evaluation(3, {"rmse": 0.8, "auc": math.nan})
        expected = Choice(3, {"rmse": 0.8}, True) if restored else Choice(9, heldout, False)
        assert course.choose(9, heldout) == expected

    def test_of_equals_the_last_stays(self):
        course = progress()
        course.add_evaluation(3, {"rmse": 0.8})
        assert not course.choose(9, {"rmse": 0.8}).restored

    def test_without_a_best_one_the_last_stays(self):
        assert progress().choose(9, {"rmse": 0.7}) == Choice(9, {"rmse": 0.7}, False)


def test_a_start_without_held_out_data_is_kept_until_there_is_a_loss():
    course = progress()
    assert course.add_evaluation(7, {})
    assert course.best == Score(7, {}, math.inf)
    course.add_step(0.5)
    assert course.add_evaluation(9, {})
    assert course.best == Score(9, {}, 0.5)


def test_steps_that_are_taken_again_do_not_tire_of_a_model_of_later_on() -> None:
    course = progress(patience=2)
    course.best = Score(40, {"rmse": 0.9}, 0.9)
    for step in (20, 30, 40):
        assert not course.add_evaluation(step, {"rmse": 0.9})
    assert course.since_best == 0
    assert not course.add_evaluation(50, {"rmse": 0.9})
    assert course.since_best == 1
