"""When a budget allows for no further step."""

from __future__ import annotations

import msgspec
import pytest

from mlless.billing.budget import GRACE, Budget, Scoring
from mlless.billing.meter import Meter, Usage
from mlless.billing.tariff import FunctionPrice, RequestPrice, Tariff, TrafficPrice

RULE = {"source": "test", "date": "2026-01-01"}
# A dollar a function and second.
TARIFF = Tariff(
    name="t",
    note="n",
    function=FunctionPrice(gb_second=1.0, granularity=1e-6, **RULE),
)


def budget(dollars: float, **prices: RequestPrice | TrafficPrice) -> Budget:
    meter = Meter(msgspec.structs.replace(TARIFF, **prices), opened=0.0, memory=1024)
    meter.start([(0, 0), (1, 0)], 0.0)
    found = Budget(meter, dollars)
    found.begin(1.0)
    return found


def ending(found: Budget, now: float, *, evaluate: bool = False) -> float:
    return found.cost(now, finisher=(0, 0), evaluate=evaluate)


def test_three_steps_the_grace_and_the_finishers_merge_are_to_come() -> None:
    found = budget(100.0)
    for step in range(5):
        found.add_step(2.0 + step, Usage(reads=2))
    committed = 6.0 + 3 * 1.0 + GRACE
    assert ending(found, 6.0) == pytest.approx(2 * committed + 1.0, abs=1e-4)


def test_a_slow_step_counts_for_a_while() -> None:
    found = budget(100.0)
    now, plain = 1.0, budget(100.0)
    for seconds in (1.0, 3.0):
        now += seconds
        found.add_step(now, Usage(reads=2))
    plain.begin(now - 1.0)
    plain.add_step(now, Usage(reads=2))
    extra = [ending(found, now) - ending(plain, now)]
    for _ in range(10):
        now += 1.0
        for one in (found, plain):
            one.add_step(now, Usage(reads=2))
        extra.append(ending(found, now) - ending(plain, now))
    # Two seconds more for both functions and for the finisher's merge, and a bit for what is typical.
    assert 6.0 < extra[0] < 8.0
    assert extra == sorted(extra, reverse=True)
    assert extra[-1] < 0.3


def test_evaluations_count_where_one_is_to_come_and_twice_at_the_end() -> None:
    found = budget(100.0)
    found.add_step(4.0, Usage(reads=2), Scoring(4.0, Usage(reads=2)))
    for step in range(12):
        found.add_step(5.0 + step, Usage(reads=2))
    without = ending(found, 16.0)
    assert without == pytest.approx(2 * (16 + 3 + GRACE) + 1 + 2 * 4.0, abs=1e-4)
    assert ending(found, 16.0, evaluate=True) == pytest.approx(without + 2 * (3.0 - 1.0), abs=1e-4)


def test_requests_and_traffic_to_come_are_paid_for() -> None:
    price = RequestPrice(thousand_reads=1000.0, thousand_writes=2000.0, **RULE)
    traffic = TrafficPrice(gb_fetched=1e9, gb_exchanged=2e9, **RULE)
    plain, paid = budget(100.0), budget(100.0, requests=price, traffic=traffic)
    for one in (plain, paid):
        one.add_step(2.0, Usage(reads=5, fetched=7, exchanged=11), Scoring(0.0, Usage(reads=2, fetched=13)))
    step, evaluation = 5 + 7 + 2 * 11, 2 + 13
    assert ending(paid, 2.0) - ending(plain, 2.0) == pytest.approx(3 * step + 3 * evaluation + 3 * 2.0)


def test_it_is_spent_when_another_step_would_cost_more() -> None:
    found = budget(19.0)
    for step in range(5):
        now = 2.0 + step
        found.add_step(now, Usage(reads=2))
        expected = "cost" if ending(found, now) > 19.0 else None
        assert found.spent(now, finisher=(0, 0), evaluate=False) == expected
    assert expected


def test_time_is_a_budget_too_and_needs_no_tariff() -> None:
    found = Budget(deadline=20.0)
    found.begin(1.0)
    spent = []
    for step in range(20):
        now = 2.0 + step
        found.add_step(now, Usage(reads=2), Scoring(0.5) if step == 0 else None)
        spent.append(found.spent(now, finisher=(0, 0), evaluate=False))
    # Three steps, the grace, a merge and two evaluations of half a second are to come.
    last = 20.0 - 3 - GRACE - 1 - 2 * 0.5
    assert spent == [None if 2.0 + step <= last else "time" for step in range(20)]


def test_money_is_named_first_where_both_run_out() -> None:
    found = budget(0.01)
    found.deadline = 1.0
    found.add_step(2.0, Usage(reads=2))
    assert found.spent(2.0, finisher=(0, 0), evaluate=False) == "cost"
    found.dollars = 1000.0
    assert found.spent(2.0, finisher=(0, 0), evaluate=False) == "time"
