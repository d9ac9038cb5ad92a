"""The meter against bills worked out by hand."""

from __future__ import annotations

import msgspec
import pytest

from mlless.billing.meter import SUPERVISOR, Bill, Meter, Usage
from mlless.billing.tariff import FunctionPrice, ServerPrice, Tariff, TrafficPrice, load_tariff
from mlless.errors import UsageError

IBM = load_tariff("published-ibm")
RULE = {"source": "test", "date": "2026-01-01"}


def story(tariff: Tariff) -> Bill:
    """Return the bill of a supervisor and three workers; one fails and is relaunched, one leaves early."""
    meter = Meter(tariff, opened=100.0, memory=2048)
    meter.start([SUPERVISOR], 100.0)
    meter.start([(0, 0), (1, 0), (2, 0)], 100.25)
    meter.use(Usage(reads=3))
    meter.end((1, 0), 104.3, ran=4.0001)  # died; heard of a moment later
    meter.start([(1, 1)], 104.5)
    meter.end((2, 0), 110.25)
    meter.use(Usage(reads=2_000, writes=100))
    meter.end((1, 1), 120.25, ran=15.75)
    meter.end((0, 0), 120.31)
    meter.end(SUPERVISOR, 121.0)
    meter.use(Usage(writes=3))
    return meter.bill(121.0)


def amounts(bill: Bill) -> dict[str, float]:
    assert bill.total == pytest.approx(sum(item.amount for item in bill.items))
    for item in bill.items:
        assert item.amount == item.quantity * item.price
    return {item.what: item.amount for item in bill.items}


# Seconds billed: the supervisor 21, worker 0 20.06, worker 1 4.0001 and 15.75, worker 2 10.
@pytest.mark.parametrize(
    ("name", "gb_second"), [("aws-lambda-x86", 0.0000166667), ("aws-lambda-arm", 0.0000133334)]
)
def test_lambda_bills_milliseconds_invocations_a_node_and_requests(name: str, gb_second: float) -> None:
    found = amounts(story(load_tariff(name)))
    assert found == pytest.approx(
        {
            "functions": (20.06 + 4.001 + 15.75 + 10) * 2 * gb_second,
            "supervisor": 21 * 2 * gb_second,
            "invocations": 5 * 0.20 / 1e6,
            "ElastiCache cache.m6g.large": 21 / 3600 * 0.149,
            "object store, reads": 2_003 * 0.0004 / 1000,
            "object store, writes": 103 * 0.005 / 1000,
        }
    )


def test_the_published_tariff_bills_tenths_of_a_second_and_two_servers() -> None:
    found = amounts(story(IBM))
    assert found == pytest.approx(
        {
            "functions": (20.1 + 4.1 + 15.8 + 10) * 2 * 0.000017,
            "supervisor": 21 * 2 * 0.000017,
            "Redis on a VM (M1.2x16)": 21 / 3600 * 0.17,
            "RabbitMQ on a VM (C1.4x4)": 21 / 3600 * 0.15,
        }
    )


def test_google_bills_tenths_of_a_second_a_vcpu_with_the_memory_and_no_server() -> None:
    found = amounts(story(load_tariff("google-cloud-run")))
    assert found == pytest.approx(
        {
            # 2 GiB and a vCPU, and 2 GB with 2.4 GHz of the first generation: the same.
            "functions": (20.1 + 4.1 + 15.8 + 10) * (2 * 0.0000025 + 0.000024),
            "supervisor": 21 * (2 * 0.0000025 + 0.000024),
            "invocations": 5 * 0.40 / 1e6,
            "object store, reads": 2_003 * 0.0004 / 1000,
            "object store, writes": 103 * 0.005 / 1000,
        }
    )


def test_traffic_is_billed_by_the_gigabyte() -> None:
    price = TrafficPrice(gb_fetched=0.02, gb_exchanged=0.01, **RULE)
    meter = Meter(msgspec.structs.replace(IBM, servers=(), traffic=price), opened=0.0)
    meter.use(Usage(fetched=500_000_000, exchanged=3_000_000_000))
    meter.use(Usage(fetched=250_000_000))
    assert amounts(meter.bill(1.0)) == pytest.approx(
        {"functions": 0.0, "object store, traffic": 0.015, "updates, traffic": 0.03}
    )
    ahead = meter.bill(1.0, more=Usage(exchanged=1_000_000_000))
    assert amounts(ahead)["updates, traffic"] == pytest.approx(0.04)
    assert amounts(meter.bill(1.0))["updates, traffic"] == pytest.approx(0.03)


def test_a_minimum_is_charged_for_every_launch() -> None:
    price = FunctionPrice(gb_second=0.001, granularity=0.1, minimum=1.0, **RULE)
    meter = Meter(Tariff(name="t", note="n", function=price), opened=0.0, memory=1024)
    meter.start([1, 2], 0.0)
    meter.end(1, 0.01)
    meter.end(2, 1.11)
    assert meter.cost(5.0) == pytest.approx((1.0 + 1.2) * 0.001)


def test_a_clocks_rounding_error_costs_no_unit() -> None:
    meter = Meter(IBM, opened=0.0, memory=1024)
    meter.start([0], 0.0)
    assert meter.bill(0.1 + 0.2).items[0].quantity == pytest.approx(0.3)


def test_the_cost_so_far_grows_while_functions_run_and_stays_what_it_was_after_their_end() -> None:
    meter = Meter(msgspec.structs.replace(IBM, servers=()), opened=0.0)
    assert meter.cost(0.0) == 0.0
    meter.start([0, 1], 0.0)
    assert meter.cost(10.0) == pytest.approx(2 * 10 * 2 * 0.000017)
    meter.end(0, 10.0)
    assert meter.cost(20.0) == pytest.approx(3 * 10 * 2 * 0.000017)
    meter.end(1, 20.0)
    assert meter.cost(500.0) == meter.cost(20.0)


def test_the_rate_is_that_of_functions_and_servers() -> None:
    meter = Meter(IBM, opened=0.0)
    assert meter.rate(2) == pytest.approx(4 * 0.000017 + 0.32 / 3600)


def lasts(meter: Meter, budget: float) -> float:
    """Return for how many seconds a budget lasts."""
    low, high = 0.0, 5000.0
    while high - low > 0.01:
        middle = (low + high) / 2
        low, high = (middle, high) if meter.cost(middle) <= budget else (low, middle)
    return low


@pytest.mark.parametrize(
    ("system", "seconds"),
    [("mlless", (96, 192, 385)), ("vms", (270, 540, 1080)), ("pywren", (105, 211, 423))],
)
def test_the_published_price_model(system: str, seconds: tuple[int, ...]) -> None:
    """What budgets of $0.09, $0.18 and $0.36 bought in the published comparison."""
    vms = tuple(ServerPrice(name=f"VM {n}", hour=0.2, **RULE) for n in range(6))
    tariff = {
        "mlless": IBM,
        "vms": msgspec.structs.replace(IBM, servers=vms),
        "pywren": msgspec.structs.replace(IBM, servers=()),
    }[system]
    meter = Meter(tariff, opened=0.0, memory=2048)
    if system != "vms":
        meter.start([SUPERVISOR if system == "mlless" else "another", *range(24)], 0.0)
    for budget, expected in zip((0.09, 0.18, 0.36), seconds, strict=True):
        assert lasts(meter, budget) == pytest.approx(expected, rel=0.01)


def test_a_supervisor_that_is_a_function_is_a_part_of_every_forecast() -> None:
    meter = Meter(IBM, opened=0.0)
    rate, least = meter.rate(2), meter.minimum(2)
    meter.start([SUPERVISOR], 0.0)
    assert meter.rate(2) == pytest.approx(rate + 2 * 0.000017)
    assert meter.minimum(2) == pytest.approx(least * 3 / 2)
    with pytest.raises(UsageError, match=r"for 3 functions"):
        meter.check_budget(1.2 * least, 2)


def test_a_budget_below_the_minimum_charge_is_refused() -> None:
    meter = Meter(IBM, opened=0.0)
    least = 8 * 0.1 * 2 * 0.000017
    meter.check_budget(least, 8)
    with pytest.raises(UsageError, match=r"at least \$0\.0000272 for 8 functions .* `max_cost`"):
        meter.check_budget(0.99 * least, 8)
    meter = Meter(load_tariff("aws-lambda-x86"), opened=0.0)
    assert meter.minimum(1) == pytest.approx(0.001 * 2 * 0.0000166667 + 0.2e-6)


def test_what_a_job_had_cost_before_it_was_lost_is_an_item_and_part_of_the_budget() -> None:
    meter = Meter(IBM, opened=0.0, earlier=0.25)
    meter.start([(0, 0)], 0.0)
    bill = meter.bill(10.0)
    new = Meter(IBM, opened=0.0)
    new.start([(0, 0)], 0.0)
    assert amounts(bill)["earlier, until the job was lost"] == 0.25
    assert bill.total == pytest.approx(0.25 + new.bill(10.0).total)
    assert meter.cost(10.0) == bill.total
    new.check_budget(0.2, 1)
    with pytest.raises(
        UsageError, match=r"at least \$\S+ beyond the \$0.250 of before, for 1 .* found \$0.200"
    ):
        meter.check_budget(0.2, 1)
    meter.check_budget(0.45, 1)
