"""What has been used so far, and the bill for it.

The meter is told who started and ended when. It bills a function from start to end as its provider does,
every launch by itself. One that failed is billed as its successor is, and the supervisor only where it is a
function. Servers are billed for the seconds of the job, requests and traffic by their number.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from mlless.billing.amount import money
from mlless.billing.tariff import Tariff
from mlless.errors import UsageError

SUPERVISOR = "supervisor"  # the function that leads a job, where it is one; it has a line of its own
MEMORY = 2048  # MB a function is billed for unless the job says otherwise: that of the published experiments


class Item(msgspec.Struct, frozen=True):
    """One line of a bill: ``quantity`` of ``unit`` at ``price`` dollars each."""

    what: str
    quantity: float
    unit: str
    price: float
    amount: float


class Bill(msgspec.Struct, frozen=True):
    """What a job cost in dollars, item by item, by the tariff of that name."""

    tariff: str
    items: tuple[Item, ...]
    total: float

    def __str__(self) -> str:
        items = ", ".join(f"{item.what} {money(item.amount)}" for item in self.items)
        return f"{money(self.total)} by {self.tariff}: {items}"


class Usage(NamedTuple):
    """What is billed by quantity: requests to the object store, bytes fetched from it, bytes of updates."""

    reads: int = 0
    writes: int = 0
    fetched: int = 0
    exchanged: int = 0

    def plus(self, other: Usage, times: int = 1) -> Usage:
        """Return this usage and the ``other`` one, that one ``times`` over."""
        return Usage(*(own + times * more for own, more in zip(self, other, strict=True)))


NOTHING = Usage()


@dataclass
class _Launch:
    started: float
    ended: float | None = None


class Meter:
    """The meter of one job, whose servers are used from ``opened`` on.

    ``memory`` is that of a function in MB. A function is any value that tells one launch from another,
    like worker and generation. ``earlier`` are the dollars that a job which is resumed had cost before.
    """

    def __init__(self, tariff: Tariff, *, opened: float, memory: int = MEMORY, earlier: float = 0.0) -> None:
        self._tariff, self._opened, self._gb, self._earlier = tariff, opened, memory / 1024, earlier
        self._launches: dict[Hashable, _Launch] = {}
        self._used = NOTHING

    @property
    def tariff(self) -> str:
        """The tariff's name."""
        return self._tariff.name

    def start(self, functions: Iterable[Hashable], at: float) -> None:
        """Take in that functions start."""
        for function in functions:
            assert function not in self._launches, f"{function} has been started before"
            self._launches[function] = _Launch(at)

    def end(self, function: Hashable, at: float, *, ran: float | None = None) -> None:
        """Take in that a function is over by ``at``, after the seconds it ``ran`` if its runtime knows."""
        launch = self._launches[function]
        launch.ended = at if ran is None else launch.started + ran

    def use(self, usage: Usage) -> None:
        """Take in requests and traffic."""
        self._used = self._used.plus(usage)

    def cost(self, at: float) -> float:
        """Return the dollars due if everything ended at ``at``."""
        return self.bill(at).total

    def bill(self, at: float, *, more: Usage = NOTHING) -> Bill:
        """Return the bill of a job that ends at ``at``, its functions having ended by then.

        To look ahead: ``more`` may be used until then.
        """
        price, items = self._tariff.function, []
        seconds = {"functions": 0.0}
        for function, launch in self._launches.items():
            end = at if launch.ended is None else launch.ended
            what = SUPERVISOR if function == SUPERVISOR else "functions"
            billed = _billed(end - launch.started, price.granularity, price.minimum)
            seconds[what] = seconds.get(what, 0.0) + billed
        for what, total in seconds.items():
            items.append(_item(what, total * self._gb, "GB-s", price.gb_second))
        if price.million_invocations:
            items.append(_item("invocations", len(self._launches), "", price.million_invocations / 1e6))
        for server in self._tariff.servers:
            items.append(_item(server.name, (at - self._opened) / 3600, "h", server.hour))
        items += self._items(self._used.plus(more))
        if self._earlier:
            items.append(_item("earlier, until the job was lost", 1, "", self._earlier))
        return Bill(self._tariff.name, tuple(items), math.fsum(item.amount for item in items))

    def price(self, usage: Usage) -> float:
        """Return the dollars for so many requests and so much traffic."""
        return math.fsum(item.amount for item in self._items(usage))

    def rate(self, functions: int) -> float:
        """Return the dollars a second of so many functions, the supervisor if it is one, and the servers."""
        servers = sum(server.hour for server in self._tariff.servers) / 3600
        return (functions + self._supervisors) * self._gb * self._tariff.function.gb_second + servers

    def _items(self, used: Usage) -> list[Item]:
        items = []
        if requests := self._tariff.requests:
            items.append(_item("object store, reads", used.reads, "", requests.thousand_reads / 1e3))
            items.append(_item("object store, writes", used.writes, "", requests.thousand_writes / 1e3))
        if traffic := self._tariff.traffic:
            items.append(_item("object store, traffic", used.fetched / 1e9, "GB", traffic.gb_fetched))
            items.append(_item("updates, traffic", used.exchanged / 1e9, "GB", traffic.gb_exchanged))
        return items

    @property
    def _supervisors(self) -> int:
        return int(SUPERVISOR in self._launches)

    @property
    def traffic_rate(self) -> float:
        """The dollars a byte of updates."""
        return self._tariff.traffic.gb_exchanged / 1e9 if self._tariff.traffic else 0.0

    def minimum(self, functions: int) -> float:
        """Return the least that so many functions cost, and the supervisor, however short they run."""
        price = self._tariff.function
        shortest = _billed(0.0, price.granularity, price.minimum)
        return (functions + self._supervisors) * (
            shortest * self._gb * price.gb_second + price.million_invocations / 1e6
        )

    def check_budget(
        self, dollars: float, functions: int, usage: Usage = NOTHING, seconds: float = 0.0
    ) -> None:
        """Raise UsageError unless ``dollars`` pay for functions, for so long, and what any job uses."""
        least = max(self.minimum(functions), seconds * self.rate(functions)) + self.price(usage)
        if dollars - self._earlier < least * (1 - 1e-9):
            more = f" beyond the {money(self._earlier)} of before," if self._earlier else ""
            raise UsageError(
                "the budget is below the minimum charge",
                expected=f"at least {money(least)}{more} for {functions + self._supervisors} functions "
                f"by {self._tariff.name}",
                found=money(dollars),
                cure="raise --max-cost, or use fewer --workers",
            )


def _item(what: str, quantity: float, unit: str, price: float) -> Item:
    return Item(what, quantity, unit, price, quantity * price)


def _billed(seconds: float, granularity: float, minimum: float) -> float:
    # A clock's rounding error, like 0.30000000000000004 s, must not cost a whole unit.
    units = math.ceil(max(seconds, minimum, granularity) / granularity - 1e-6)
    return units * granularity
