"""What flows get of the links that they share: fairly, all of it, and no more."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlless.simulation.sharing import Flow, Sharing, Spell


def ends(capacities: dict[str, float], begins: list[tuple[float, Spell]]) -> list[tuple[float, int]]:
    """Return when flows end that begin at such times, in order of ends, by their place in ``begins``."""
    sharing, found, flows = Sharing(capacities.__getitem__), [], list[Flow]()
    waiting = sorted(begins, key=lambda one: one[0])
    while waiting or sharing.next_end():
        following = sharing.next_end()
        if waiting and (following is None or waiting[0][0] < following[0]):
            begin, spell = waiting.pop(0)
            flows.append(sharing.begin(spell, begin))
        else:
            end, flow = following
            sharing.end(flow, end)
            found.append((end, flows.index(flow)))
    return found


def test_a_flow_alone_is_as_quick_as_its_slowest_link_or_itself() -> None:
    capacities = {"fast": 10.0, "slow": 2.0}
    assert ends(capacities, [(1.0, Spell(20.0, 100.0, ("fast",)))]) == [(3.0, 0)]
    assert ends(capacities, [(1.0, Spell(20.0, 100.0, ("fast", "slow")))]) == [(11.0, 0)]
    assert ends(capacities, [(1.0, Spell(20.0, 1.0, ("fast", "slow")))]) == [(21.0, 0)]


def test_who_comes_later_shares_what_is_left() -> None:
    """The first is alone for 1 s, both share for 2 s, and the second goes on alone."""
    assert ends(
        {"link": 10.0}, [(0.0, Spell(20.0, 99.0, ("link",))), (1.0, Spell(30.0, 99.0, ("link",)))]
    ) == [
        (3.0, 0),
        (5.0, 1),
    ]


def test_what_a_slow_flow_leaves_is_for_the_others() -> None:
    """Max-min fairness: of 10 the slow one takes 1, and the two others 4.5 each."""
    spells = [Spell(9.0, most, ("link",)) for most in (1.0, 99.0, 99.0)]
    assert ends({"link": 10.0}, [(0.0, spell) for spell in spells]) == [(2.0, 1), (2.0, 2), (9.0, 0)]


def test_a_chain_of_links_is_shared_link_by_link() -> None:
    """The textbook's network: the long flow gets half of the narrow link, the short ones what is left."""
    capacities = {"a": 10.0, "b": 4.0}
    begins = [
        (0.0, Spell(4.0, 99.0, ("a", "b"))),  # 2 of b
        (0.0, Spell(16.0, 99.0, ("a",))),  # 8 of a
        (0.0, Spell(4.0, 99.0, ("b",))),  # 2 of b
    ]
    assert ends(capacities, begins) == [(2.0, 0), (2.0, 1), (2.0, 2)]


def test_who_is_broken_off_makes_room() -> None:
    sharing = Sharing({"link": 10.0}.__getitem__)
    first, second = (sharing.begin(Spell(100.0, 99.0, ("link",)), 0.0) for _ in range(2))
    sharing.end(first, 4.0)
    assert sharing.next_end() == (12.0, second)


links = st.sampled_from(["a", "b", "c"])
flows = st.tuples(
    st.integers(0, 20).map(float),
    st.builds(
        Spell,
        st.integers(1, 100).map(float),
        st.integers(1, 12).map(float),
        st.sets(links, min_size=1).map(lambda names: tuple(sorted(names))),
    ),
)


@given(
    st.dictionaries(links, st.integers(1, 20).map(float), min_size=3), st.lists(flows, min_size=1, max_size=8)
)
def test_rates_are_fair_and_no_link_carries_more_than_it_can(capacities, begins) -> None:
    """Each flow is as quick as it can be, or goes through a full link in which nobody is quicker."""
    sharing, live = Sharing(capacities.__getitem__), list[Flow]()
    for begin, spell in sorted(begins, key=lambda one: one[0]):
        while (following := sharing.next_end()) and following[0] <= begin:
            sharing.end(following[1], following[0])
            live.remove(following[1])
            check(capacities, live)
        live.append(sharing.begin(spell, begin))
        check(capacities, live)


def check(capacities: dict[str, float], live: list[Flow]) -> None:
    on = {link: [flow for flow in live if link in flow.spell.links] for link in capacities}
    carried = {link: sum(flow.rate for flow in some) for link, some in on.items()}
    for link, capacity in capacities.items():
        assert carried[link] <= capacity * (1 + 1e-9)
    for flow in live:
        full = [link for link in flow.spell.links if carried[link] >= capacities[link] * (1 - 1e-9)]
        quickest = any(flow.rate >= max(one.rate for one in on[link]) * (1 - 1e-9) for link in full)
        assert flow.rate == flow.spell.most or quickest


@given(st.lists(flows, min_size=1, max_size=8))
def test_all_that_begins_ends_and_nothing_is_lost(begins) -> None:
    """Alone on a link of 1 a second, together they take what they would one after the other."""
    begins = [(0.0, spell._replace(most=1e9, links=("a",))) for _, spell in begins]
    found = ends({"a": 1.0}, begins)
    assert len(found) == len(begins)
    assert found[-1][0] == pytest.approx(sum(spell.amount for _, spell in begins))
