from __future__ import annotations

import pytest

from mlless.job import Stop, Target
from mlless.report.comparison.milestone import milestone_of, verdict


def test_it_is_the_best_that_all_came_to(recorded):
    # Without any evaluation better than 0.8 + 1/31, and 0.1 better throughout.
    runs = [recorded("slow", pace=2.0, price=0.01), recorded("good", price=0.03, better=0.1)]
    found = milestone_of(runs)
    assert found.metric == "rmse"
    assert found.level == pytest.approx(0.8 + 1 / 31)
    slow, good = found.arrivals["slow"], found.arrivals["good"]
    assert (slow.steps, slow.seconds, slow.dollars) == (30, 62.0, pytest.approx(0.62))
    assert (good.steps, good.seconds, good.dollars) == (10, 11.0, pytest.approx(0.33))
    assert verdict(found) == (
        "All came to rmse 0.8323. The quickest was good (11.0 s, 82% less than the next). "
        "The cheapest was good ($0.330, 47% less than the next)."
    )


def test_it_is_the_target_that_all_had_and_met(recorded, job):
    aimed = {"job": job(stop=Stop(epochs=4, target=Target(metric="rmse", value=0.86)))}
    runs = [recorded("one", aimed), recorded("two", aimed, better=0.01)]
    assert milestone_of(runs).level == 0.86
    # One of them has not met it: what that one came to is what both came to.
    missed = {"job": job(stop=Stop(epochs=4, target=Target(metric="rmse", value=0.82)))}
    assert milestone_of([recorded("one", missed), recorded("two", missed)]).level == pytest.approx(
        0.8 + 1 / 31
    )
    assert milestone_of([recorded("one", aimed), recorded("two")]).level == pytest.approx(0.8 + 1 / 31)


def test_one_run_alone_is_told_of_by_itself(recorded):
    assert verdict(milestone_of([recorded()])) == "Came to rmse 0.8323 in 31.0 s."
    assert verdict(milestone_of([recorded(price=0.01)])) == "Came to rmse 0.8323 in 31.0 s, for $0.310."


def test_money_is_compared_only_where_all_are_metered(recorded):
    assert "cheapest" not in verdict(milestone_of([recorded("one", price=0.01), recorded("two")]))


def test_without_a_common_metric_there_is_none(recorded, job, lr):
    clicks = recorded("clicks", {"job": job(model=lr)}, metric="log_loss")
    assert milestone_of([recorded(), clicks]) is None
    assert milestone_of([clicks]).metric == "log_loss"


def test_without_held_out_rows_the_training_loss_is_compared(recorded, job):
    run = recorded(changes={"job": job(validation_batches=0), "heldout": {}})
    assert milestone_of([run]).metric == "train_loss"
    assert milestone_of([run]).level == pytest.approx(0.5 + 1 / 40)
