"""When a budget allows for no further step."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from mlless.billing.budget import GRACE, Budget, Scoring, StepUse
from mlless.billing.meter import Meter, Usage
from mlless.billing.tariff import FunctionPrice, RequestPrice, Tariff, TrafficPrice

RULE = {"source": "test", "date": "2026-01-01"}
# A dollar a function and second.
TARIFF = Tariff(
    name="t",
    note="n",
    function=FunctionPrice(gb_second=1.0, granularity=1e-6, **RULE),
)
PLAIN = StepUse(used=Usage(reads=2), workers=2)


def budget(dollars: float = 100.0, flush: int = 0, **prices: RequestPrice | TrafficPrice) -> Budget:
    meter = Meter(msgspec.structs.replace(TARIFF, **prices), opened=0.0, memory=1024)
    meter.start([(0, 0), (1, 0)], 0.0)
    found = Budget(meter, dollars, flush=flush)
    found.begin(1.0)
    return found


def ending(found: Budget, now: float, *, evaluate: bool = False) -> float:
    return found.cost(now, evaluate=evaluate)


def after(found: Budget, *seconds: float, scoring: Scoring | None = None) -> float:
    """Let the budget see steps of so many seconds, the last of which evaluates; return when that is."""
    now = found._closed
    for number, one in enumerate(seconds):
        now += one
        last = number == len(seconds) - 1
        found.add_step(now, replace(PLAIN, scoring=scoring if last else None))
    return now


def test_three_steps_the_grace_and_the_last_merge_are_to_come() -> None:
    found = budget()
    now = after(found, 1, 1, 1, 1, 1)
    assert ending(found, now) == pytest.approx(2 * (now + 4 * 1.0 + GRACE), abs=1e-4)


def test_with_slack_more_steps_are_to_come_and_several_may_evaluate() -> None:
    found = budget()
    found.more = 3
    now = after(found, 1, 1, 1, 1, 1)
    assert ending(found, now) == pytest.approx(2 * (now + 7 * 1.0 + GRACE), abs=1e-4)
    now = after(found, 1 + 2, scoring=Scoring(longest=2.0))
    without = ending(found, now)
    assert found.cost(now, evaluate=2) == pytest.approx(without + 2 * 2 * 2.0, abs=1e-4)


def test_the_first_step_is_cold_and_says_little_of_the_others() -> None:
    found = budget()
    now = after(found, 8.0)
    assert ending(found, now) == pytest.approx(2 * (now + 4 * 4.0 + GRACE), abs=1e-4)
    now = after(found, 1.0)
    assert ending(found, now) == pytest.approx(2 * (now + 4 * 1.0 + GRACE), abs=1e-4)


def test_an_evaluation_in_the_first_step_is_not_taken_for_the_step() -> None:
    found = budget()
    now = after(found, 10.0, scoring=Scoring(longest=8.0))
    # It is cold, too: another one is expected to take half as long.
    assert ending(found, now) == pytest.approx(2 * (now + 4 * 1.0 + 4.0 + GRACE), abs=1e-4)
    assert ending(found, now, evaluate=True) == pytest.approx(ending(found, now) + 2 * 4.0, abs=1e-4)
    now = after(found, 1.0, 9.0, scoring=Scoring(longest=8.0))
    assert ending(found, now) == pytest.approx(2 * (now + 4 * 1.0 + 8.0 + GRACE), abs=1e-4)


def test_a_slow_step_counts_for_many_others() -> None:
    slow, plain = budget(), budget()
    now = after(slow, 1.0, 1.0, 3.0)
    after(plain, 1.0, 1.0, 3.0)
    plain._slowest = plain._typical = 1.0
    extra = []
    for _ in range(400):
        now = after(slow, 1.0)
        assert after(plain, 1.0) == now
        extra.append(ending(slow, now) - ending(plain, now))
    # Two seconds more for a step and for the last merge, of both functions.
    assert extra[5] == pytest.approx(8.0, rel=0.1)
    assert extra == sorted(extra, reverse=True)
    # It is forgotten by half in 200 steps: of its 3 s 1.5 are left, and 0.75 in twice as many.
    assert extra[199] == pytest.approx(4 * 0.5, rel=0.05)
    assert extra[-1] == 0.0


def test_where_steps_are_quick_a_slow_one_is_forgotten_in_seconds() -> None:
    found = budget()
    after(found, 0.001, 0.001, 3.0)
    now = after(found, *([0.001] * 60_000))
    assert ending(found, now) - 2 * now == pytest.approx(2 * GRACE, rel=0.02)


def test_a_step_of_more_mini_batches_is_reckoned_with_before_the_first_of_them() -> None:
    found = budget()
    now = after(found, 1, 1, 1, 1, 1)
    plain = found.cost(now, evaluate=0)
    # Seven seconds more for each of two steps, of both functions; nobody trains in the third.
    assert found.cost(now, evaluate=0, length=8) == pytest.approx(plain + 2 * 2 * 7.0, abs=1e-4)
    found.add_step(now + 5.0, replace(PLAIN, length=8))
    found.add_step(now + 6.0, PLAIN)  # the short one that ends an epoch
    assert found.cost(now, evaluate=0, length=8) == pytest.approx(2 * (now + 4 * 5.0 + GRACE), rel=1e-2)


def test_what_a_longer_step_uses_is_reckoned_with() -> None:
    found = budget(requests=RequestPrice(thousand_reads=1000.0, thousand_writes=0.0, **RULE))
    now = after(found, 1, 1)
    plain, longer = (found.cost(now, evaluate=0, length=length) for length in (1, 4))
    assert longer - plain == pytest.approx(2 * 2 * 3.0 + 3 * 3 * PLAIN.used.reads, abs=1e-4)
    found.add_step(now + 1, StepUse(used=Usage(reads=9), workers=2, length=4))
    found.add_step(now + 2, StepUse(used=Usage(reads=1), workers=1))
    assert (found._last.used.reads, found._last.workers) == (9, 1)


def test_an_evaluation_counts_where_one_is_to_come_and_at_the_end() -> None:
    found = budget()
    after(found, 1.0, 1.0, 4.0, scoring=Scoring(longest=3.0))
    now = after(found, *([1.0] * 12))
    without = ending(found, now)
    assert without == pytest.approx(2 * (now + 4 + 3.0 + GRACE), abs=1e-4)
    assert ending(found, now, evaluate=True) == pytest.approx(without + 2 * 3.0, abs=1e-4)


def test_a_flush_takes_the_time_of_its_bytes() -> None:
    found, plain = budget(flush=1000), budget()
    now = 1.0
    for one in (found, plain):
        now = 1.0
        for _ in range(2):
            now += 1.0
            large = StepUse(workers=2, published=100.0, publishing=0.2, read=100.0, merging=0.4)
            one.add_step(now, large)
            small = StepUse(workers=2, published=1.0, publishing=0.1, read=1.0, merging=0.1)
            now += 1.0
            one.add_step(now, small)  # says more of what a message takes than of what a byte does
    # All publish for two seconds; then they merge both flushes for eight seconds instead of one.
    assert ending(found, now) - ending(plain, now) == pytest.approx(2 * (2.0 + 8.0 - 1.0), abs=1e-4)


def test_requests_and_traffic_to_come_are_paid_for() -> None:
    price = RequestPrice(thousand_reads=1000.0, thousand_writes=2000.0, **RULE)
    traffic = TrafficPrice(gb_fetched=1e9, gb_exchanged=2e9, **RULE)
    plain, paid = budget(flush=50), budget(flush=50, requests=price, traffic=traffic)
    scoring = Scoring(longest=0.0, used=Usage(reads=2, fetched=13))
    for one in (plain, paid):
        one.add_step(1.5, StepUse(scoring=scoring))  # the first evaluation reads what later ones have at hand
        one.add_step(2.0, StepUse(used=Usage(reads=5, fetched=7, exchanged=11), workers=2, scoring=scoring))
    step, evaluation, flushes = 5 + 7 + 2 * 11, 2 + 13, 2 * 2**2 * 50
    expected = 3 * step + 2 * evaluation + flushes + 3 * 2.0
    assert ending(paid, 2.0) - ending(plain, 2.0) == pytest.approx(expected)


def test_flushes_that_one_merges_for_all_are_written_and_read_less_often() -> None:
    """Each is published and read by its merger; the sum of all is published and read by everyone else."""
    traffic = TrafficPrice(gb_exchanged=1e9, **RULE)
    plain, merged = (replace(budget(flush=50, traffic=traffic), merged=one) for one in (False, True))
    for one in (plain, merged):
        one.begin(1.0)
        one.add_step(2.0, StepUse(workers=8))
    assert ending(plain, 2.0) - ending(merged, 2.0) == 50 * (8 * 8 - (8 + 7 + 1 + 7))


def test_it_is_spent_when_another_step_would_cost_more() -> None:
    found = budget(19.0)
    for _ in range(5):
        now = after(found, 1.0)
        expected = "cost" if ending(found, now) > 19.0 else None
        assert found.spent(now, evaluate=False) == expected
    assert expected


def test_time_is_a_budget_too_and_needs_no_tariff() -> None:
    found = Budget(deadline=20.0)
    found.begin(1.0)
    after(found, 1.0, 1.5, scoring=Scoring(longest=0.5))
    spent = []
    for _ in range(20):
        now = after(found, 1.0)
        spent.append((now, found.spent(now, evaluate=False)))
    # Three steps, the grace, a merge and an evaluation of half a second are to come.
    last = 20.0 - 3 - GRACE - 1 - 0.5
    assert spent == [(now, None if now <= last else "time") for now, _ in spent]
    assert {reason for _, reason in spent} == {None, "time"}


def test_money_is_named_first_where_both_run_out() -> None:
    found = budget(0.01)
    found.deadline = 1.0
    now = after(found, 1.0)
    assert found.spent(now, evaluate=False) == "cost"
    assert found.over(now) == "cost"
    found.dollars = 1000.0
    assert found.spent(now, evaluate=False) == "time"
    assert found.over(now) == "time"
    assert found.over(0.5) is None
