from __future__ import annotations

import pytest

from mlless.billing.meter import Bill, Item
from mlless.billing.tariff import load_tariff
from mlless.deployment import Deployment
from mlless.job import Scaling, Stop, Sync, Target
from mlless.locations import place_of
from mlless.records import Checkpoints, StepTimes, WorkerSummary
from mlless.report.account import closing, left_by, opening, shares, why_ended
from mlless.report.underway import Detached, options_of


def test_opening_of_ratings(job):
    told = dict(opening(job(), Deployment()))
    assert told["data"] == "/data/r: 640 ratings to train on, 64 held out, 10 mini-batches an epoch"
    assert told["model"] == "matrix factorisation: 10 users, 5 items, 2 factors"
    assert told["optimizer"] == "adagrad, learning rate 0.1, l2 0.06"
    assert told["workers"] == "2, isp: only changes above v = 0.7 are published"
    assert told["until"] == "4 epochs"


def test_opening_says_where_it_runs_and_no_password(job):
    store = "redis://me:s3cret@one:6379,redis://:s3c@ret@two/0"
    told = dict(opening(job(), Deployment(store=store, bus="amqp://u:s3cret@host")))
    assert told["where"] == (
        "processes of this machine, store redis://me:***@one:6379, redis://:***@two/0, bus amqp://u:***@host"
    )
    assert "where" not in dict(opening(job(), Deployment()))
    told = dict(opening(job(), Deployment(store="redis://one", runtime="lithops")))
    assert told["where"] == "functions by Lithops, store redis://one, bus the same"
    told = dict(opening(job(), Deployment(memory=1769, time_limit=60)))
    assert (
        told["where"] == "processes of this machine of 1,769 MB and 60 s each, store embedded, bus the same"
    )


def test_opening_of_clicks(job, lr):
    stop = Stop(epochs=3, target=Target(metric="auc", value=0.8), patience=2, max_time=60)
    sync = Sync(significance=0, half=False, merge="mean")
    told = dict(opening(job(model=lr, sync=sync, stop=stop), Deployment()))
    assert told["model"] == "logistic regression: 1,000 features"
    assert told["workers"].endswith("bsp: every change is published")
    assert told["until"] == "3 epochs, or auc = 0.8, or 2 evaluations without a better one, or 1 min 00 s"


def test_what_is_unusual_about_the_exchange_is_told(job) -> None:
    told = dict(opening(job(workers=4, slack=3, on_loss="shrink"), Deployment()))
    assert told["workers"].endswith("merged 3 steps late, the others go on without one that is lost")
    told = dict(opening(job(workers=4, pattern="scatter", on_loss="fail"), Deployment()))
    assert told["workers"].endswith("updates move by scatter, a lost one ends the job")
    told = dict(opening(job(workers=4, share_users=True), Deployment()))
    assert told["workers"].endswith("are published, those of users, too")


def test_closing(summary):
    told = dict(closing(summary(), "runs/r"))
    assert told["result"] == "rmse 0.8000 on 64 held-out ratings"
    assert told["ended"] == "4 epochs done (12.0 s)"
    assert told["model"] == "runs/r"
    assert told["traffic"] == "published 34.1 MB, read 2.0 kB, mini-batches 10 bytes"
    assert told["time"].startswith("fetch 10%, compute 40%, filter 10%, publish 10%, wait 20%, merge 10%")


def test_closing_says_what_the_largest_worker_had(summary):
    assert "memory" not in dict(closing(summary(), "runs/r"))
    peaks = [64 << 20, None, (2000 << 20) + 1]
    workers = [WorkerSummary(n, 0, 1, 0.1, 0.1, peak) for n, peak in enumerate(peaks)]
    assert dict(closing(summary(workers=workers), "r"))["memory"] == "at most 2,001 MB a worker"


def test_closing_tells_the_epochs_of_who_did_not_do_all(summary):
    told = dict(closing(summary(stop_reason="callback", epochs=2.34), "runs/r"))
    assert told["ended"] == "a callback asked for the end (2.3 epochs, 12.0 s)"


def test_closing_says_which_model_was_kept(summary):
    told = dict(closing(summary(restored=True, model_step=12), "runs/r"))
    assert told["model"] == "runs/r (the best: as it was after step 12)"


@pytest.mark.parametrize(
    ("changes", "stop", "told"),
    [
        ({}, Stop(epochs=20, patience=3), True),
        ({}, Stop(epochs=20), False),  # so many were asked for
        ({"restored": True}, Stop(epochs=20, patience=3), False),
        ({"stop_reason": "patience"}, Stop(epochs=20, patience=3), False),
        ({"heldout": {}}, Stop(epochs=20, patience=3), False),
    ],
)
def test_closing_tells_that_the_last_epoch_was_the_best(summary, job, changes, stop, told):
    lines = closing(summary(job=job(stop=stop), **changes), "runs/r")
    assert told == any("more may do better: train with --epochs 40 --patience 3" in text for _, text in lines)


def test_closing_repeats_what_is_to_doubt_beside_the_result(summary):
    told = list(closing(summary(notes=("all are 4", "only 10 rows")), "runs/r"))
    assert [label for label, _ in told[:3]] == ["result", "note", "note"]
    assert [text for label, text in told if label == "note"] == ["all are 4", "only 10 rows"]


def test_closing_without_held_out_rows(summary):
    told = dict(closing(summary(heldout={}), "runs/r"))
    assert told["result"] == "train rmse 0.7071; nothing was held out to check it on"
    assert "result" not in dict(closing(summary(heldout={}, train_loss=None), "runs/r"))


@pytest.mark.parametrize(
    ("reason", "stop", "text"),
    [
        ("epochs", Stop(epochs=1), "1 epoch done"),
        ("target", Stop(epochs=1, target=Target(metric="rmse", value=0.85)), "target reached: rmse 0.85"),
        ("patience", Stop(epochs=1, patience=3), "no better in 3 evaluations"),
        ("time", Stop(epochs=1, max_time=5), "no time for another step and the ending within 5.0 s"),
        ("cost", Stop(epochs=1, max_cost=0.25), "no money for another step and the ending within $0.250"),
        ("diverged", Stop(epochs=1), "the model diverged"),
        ("interrupted", Stop(epochs=1), "interrupted"),
    ],
)
def test_why_a_run_ended(summary, job, reason, stop, text):
    spec = job(stop=stop, tariff=load_tariff("published-ibm"))
    assert why_ended(summary(stop_reason=reason, job=spec)) == text


def test_functions_that_handed_over_or_were_lost_are_counted(summary):
    told = dict(closing(summary(handovers=1200, lost=2), "runs/r"))
    assert told["functions"] == "1,200 handed over to a successor, 2 lost"
    assert dict(closing(summary(lost=1), "runs/r"))["functions"] == "1 lost"
    assert "functions" not in dict(closing(summary(), "runs/r"))


def test_a_failed_run_is_resumed_where_it_ran(summary):
    options = options_of(Deployment(store="redis://:s3cret@one", time_limit=9), Detached(1, "/log"))
    found = summary(options=options, checkpoints=Checkpoints(step=30), bill=None, model_step=0)
    (told,) = left_by(found, place_of("runs/my first"))
    assert told == (
        "it can be resumed from its checkpoint, that of step 30: "
        "mlless resume 'runs/my first' --detach --store redis://one --time-limit 9"
    )


def test_closing_itemises_the_bill(summary):
    items = (Item("functions", 4102.5, "GB-s", 1e-5, 0.041025), Item("invocations", 25, "", 2e-7, 5e-6))
    bill = Bill("a tariff", items, 0.04103)
    told = dict(closing(summary(bill=bill), "runs/r"))
    assert told["cost"] == "$0.0410 by a tariff: functions $0.0410, invocations $0.00000500"
    assert "cost" not in dict(closing(summary(), "runs/r"))


def test_a_budget_that_was_exceeded_is_told_as_such(summary, job):
    spec = job(stop=Stop(epochs=1, max_cost=0.01), tariff=load_tariff("published-ibm"))
    told = why_ended(summary(stop_reason="cost", job=spec, bill=Bill("t", (), 0.0123)))
    assert told == "the budget of $0.0100 was exceeded: the ending cost more than foreseen"


def test_what_became_of_the_workers_is_told_where_there_is_a_tuner(summary, job):
    spec = job(workers=4, scaling=Scaling(policy="published", min_workers=2))
    assert dict(opening(spec, Deployment()))["tuner"] == "published: lets workers go, down to 2 workers"
    told = dict(closing(summary(job=spec, members=(4, 3, 2)), "r"))
    assert told["workers"] == "4 → 3 → 2"
    told = dict(closing(summary(job=spec, members=(4,), last_look="before the knee"), "r"))
    assert told["workers"] == "4, no one left: before the knee"
    told = dict(closing(summary(job=spec, members=(4,)), "r"))
    assert told["workers"] == "4, no one left: the job was over before the tuner looked"
    assert "workers" not in dict(closing(summary(members=(2,)), "r"))


def test_shares_of_no_time_at_all():
    assert shares(StepTimes(0, 0, 0, 0, 0, 0, 0)).count("0%") == 8
