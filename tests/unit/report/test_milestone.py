from __future__ import annotations

import math

import msgspec
import pytest

from mlless.billing.tariff import load_tariff
from mlless.job import Stop, Target
from mlless.report.milestone import milestone_of, verdict

BEST = 0.8 + 1 / 31  # of what the fixture evaluates, at step 30


def told(*runs):
    return verdict(runs, milestone_of(runs))


def test_it_is_the_best_that_all_came_to(recorded):
    # The other is better by 0.1 throughout: it is there between steps 0 and 10, on the line through both.
    runs = [recorded("slow", pace=2.0, price=0.01), recorded("good", price=0.03, better=0.1)]
    found = milestone_of(runs)
    assert found.metric == "rmse"
    assert found.level == pytest.approx(BEST)
    slow, good = found.arrivals["slow"], found.arrivals["good"]
    assert (slow.steps, slow.seconds, slow.dollars) == pytest.approx((30, 62.0, 0.62))
    share = (1.7 - BEST) / (1 - 1 / 11)
    assert (good.steps, good.seconds) == pytest.approx((10 * share, 1 + 10 * share))
    assert good.dollars == pytest.approx(0.03 * (1 + 10 * share))
    assert told(*runs) == (
        "All came to rmse 0.8323. The quickest was good (10.5 s, 83% less than the next). "
        "The cheapest was good ($0.316, 49% less than the next)."
    )


def test_a_lead_that_says_nothing_is_none(recorded):
    runs = [
        recorded("one", price=0.01),
        recorded("two", price=0.0101, pace=0.999),
        recorded("slow", pace=2, price=0.01),
    ]
    assert told(*runs) == (
        "All came to rmse 0.8323. Equally the quickest were one and two (31.0 s). "
        "Equally the cheapest were one and two ($0.310)."
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
    assert told(recorded()) == "Came to rmse 0.8323 in 31.0 s."
    assert told(recorded(price=0.01)) == "Came to rmse 0.8323 in 31.0 s, for $0.310."


def test_money_is_compared_only_where_all_are_metered_and_with_a_word_on_different_tariffs(recorded, job):
    assert "cheapest" not in told(recorded("one", price=0.01), recorded("two"))
    lambdas = {"job": job(tariff=load_tariff("aws-lambda-x86"))}
    ours = told(recorded("one", lambdas, price=0.01), recorded("two", lambdas, price=0.02))
    assert "The cheapest was one" in ours
    assert "tariffs" not in ours
    serverless = {"job": job(tariff=msgspec.structs.replace(load_tariff("aws-lambda-x86"), servers=()))}
    assert "tariffs" not in told(
        recorded("one", lambdas, price=0.01), recorded("two", serverless, price=0.02)
    )
    ibm = {"job": job(tariff=load_tariff("published-ibm"))}
    mixed = told(recorded("one", lambdas, price=0.01), recorded("two", ibm, price=0.02))
    assert mixed.endswith("They are priced by different tariffs.")


def test_without_a_common_metric_or_the_same_data_there_is_none(recorded, job, lr):
    clicks = recorded("clicks", {"job": job(model=lr)}, metric="log_loss")
    assert milestone_of([recorded(), clicks]) is None
    assert "not to be compared" in told(recorded(), clicks)
    assert milestone_of([clicks]).metric == "log_loss"
    assert milestone_of([recorded("one"), recorded("two", {"job": job(fingerprint="1")})]) is None
    # Both have a training loss; but of ratings it is the root of squares.
    no_rows = {"held_out": 0}
    ratings = recorded("r", {"job": job(**no_rows), "heldout": {}}, metric=None)
    clicks = recorded("c", {"job": job(model=lr, **no_rows), "heldout": {}}, metric=None)
    assert milestone_of([ratings, clicks]) is None


def test_where_one_has_no_held_out_rows_the_training_loss_is_compared(recorded, job):
    bare = recorded("bare", {"job": job(held_out=0), "heldout": {}}, metric=None)
    for runs in ([bare], [recorded(), bare]):
        found = milestone_of(runs)
        assert found.metric == "train rmse"
        assert found.level == pytest.approx(math.sqrt(0.5 + 1 / 40))


def test_a_target_of_any_metric_is_what_runs_are_compared_by(recorded, job, lr):
    aimed = {"job": job(model=lr, stop=Stop(epochs=4, target=Target(metric="auc", value=0.65)))}
    # The fixture's values fall; of an AUC that is worse, so that it is met at once.
    found = milestone_of([recorded("one", aimed, metric="auc"), recorded("two", aimed, metric="auc")])
    assert (found.metric, found.level) == ("auc", 0.65)
    assert found.arrivals["one"].steps == 0
    loss = {"job": job(stop=Stop(epochs=4, target=Target(metric="train_loss", value=0.6)))}
    found = milestone_of([recorded("one", loss), recorded("two", loss)])
    assert (found.metric, found.level) == ("train rmse", pytest.approx(math.sqrt(0.6)))
    assert found.arrivals["one"].steps == pytest.approx(9)


def test_the_last_model_counts_with_the_time_and_money_of_the_ending(recorded, bill):
    ends = {
        "restored": False,
        "heldout": {"rmse": 0.75},
        "model_step": 40,
        "bill": bill(9.0),
        "seconds": 50.0,
    }
    found = milestone_of([recorded(changes=ends, price=0.1)])
    point = found.arrivals["one"]
    assert (found.level, point.steps, point.seconds, point.dollars) == (0.75, 40, 50.0, 9.0)
