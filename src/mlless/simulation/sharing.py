"""PURE: what is shared by all that use it at the moment: the network card of a host, its cores.

A *flow* moves so many bytes, or does so many seconds of work. It goes through one or several *links*, each of
which carries so much a second in all. Every flow gets its fair share (max-min fairness). All rates grow alike
until a link is full, or a flow as quick as it can be. Its rate then stays, and the others grow on. Rates are
found anew whenever a flow begins or ends, so time goes from one such event to the next.
"""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple


class Spell(NamedTuple):
    """Something that takes time: an ``amount``, of which at most so much is done a second, through links.

    Without links nobody is in its way. So many seconds of waiting are ``Spell(seconds)``. With ``busy`` the
    amount is seconds of a core that works for its role.
    """

    amount: float
    most: float = 1.0
    links: tuple[str, ...] = ()
    busy: bool = False


@dataclass(eq=False)
class Flow:
    """A spell under way."""

    number: int
    spell: Spell
    left: float  # at the time ``since``,
    since: float
    rate: float = 0.0  # and from then on
    version: int = 0  # of its end: what was foretold before no longer holds
    done: bool = False


class Sharing:
    """All flows of a world; ``capacity`` tells what a link carries a second.

    It is told of times in order.
    """

    def __init__(self, capacity: Callable[[str], float]) -> None:
        self._capacity = capacity
        self._on: dict[str, dict[int, Flow]] = defaultdict(dict)
        self._ends: list[tuple[float, int, int, Flow]] = []
        self._begun = 0

    def begin(self, spell: Spell, now: float) -> Flow:
        """Let a spell begin."""
        self._begun += 1
        flow = Flow(self._begun, spell, spell.amount, now)
        for link in spell.links:
            self._on[link][flow.number] = flow
        self._share(flow, now)
        return flow

    def next_end(self) -> tuple[float, Flow] | None:
        """Return which flow ends next, and when, if none begins before; None without a flow."""
        while self._ends:
            end, _, version, flow = self._ends[0]
            if not flow.done and version == flow.version:
                return end, flow
            heapq.heappop(self._ends)
        return None

    def end(self, flow: Flow, now: float) -> None:
        """Take a flow out, because it is through or is broken off."""
        flow.done = True
        for link in flow.spell.links:
            del self._on[link][flow.number]
        self._share(flow, now)

    def _share(self, changed: Flow, now: float) -> None:
        """Find the rates of all flows that one which has begun or ended has to do with."""
        flows, links = self._together(changed)
        before = [flow.rate for flow in flows]
        self._fill(flows, links)
        for flow, rate in zip(flows, before, strict=True):
            if flow.rate != rate or flow is changed:
                flow.left = max(0.0, flow.left - rate * (now - flow.since))
                flow.since = now
                flow.version += 1
                heapq.heappush(self._ends, (now + flow.left / flow.rate, flow.number, flow.version, flow))

    def _together(self, one: Flow) -> tuple[list[Flow], list[str]]:
        """Return the flows that share a link with it, or with those that do, and so on; and their links."""
        flows, links = {} if one.done else {one.number: one}, dict.fromkeys(one.spell.links)
        waiting = list(links)
        while waiting:
            for number, flow in self._on[waiting.pop()].items():
                if number not in flows:
                    flows[number] = flow
                    if len(flow.spell.links) > 1:
                        new = [link for link in flow.spell.links if link not in links]
                        links.update(dict.fromkeys(new))
                        waiting += new
        return list(flows.values()), list(links)

    def _fill(self, flows: list[Flow], links: list[str]) -> None:
        """Give every flow its fair share of the links, which nobody else uses."""
        if len(links) == 1 and flows:  # as of a store's card, through which all go
            share = self._capacity(links[0]) / len(flows)
            if all(flow.spell.most >= share for flow in flows):
                for flow in flows:
                    flow.rate = share
                return
        free = {link: self._capacity(link) for link in links}
        growing = {link: len(self._on[link]) for link in links}
        rest = sorted(flows, key=_most)
        while rest:
            share = min((free[link] / count for link, count in growing.items() if count), default=math.inf)
            # Who is as quick as it can be below the share stays there; else all on the fullest links do.
            slow = rest[0].spell.most <= share
            full = [] if slow else [link for link, n in growing.items() if n and free[link] / n <= share]
            others: list[Flow] = []
            for flow in rest:
                stays = flow.spell.most <= share if slow else any(link in full for link in flow.spell.links)
                if not stays:
                    others.append(flow)
                    continue
                flow.rate = min(flow.spell.most, share)
                for link in flow.spell.links:
                    free[link] = max(0.0, free[link] - flow.rate)
                    growing[link] -= 1
            rest = others


def _most(flow: Flow) -> float:
    return flow.spell.most
