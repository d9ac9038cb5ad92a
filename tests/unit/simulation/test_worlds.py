"""Worlds as files, and what things take in them."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest
import trials

from mlless.errors import UsageError
from mlless.job import JobSpec
from mlless.recipes import job_of
from mlless.records import StepRecord
from mlless.simulation.environment import Environment
from mlless.simulation.jobs import Simulation, simulate
from mlless.simulation.sharing import Spell
from mlless.simulation.world import WORLDS, Rate, World, load_world
from mlless.wishes import Wishes

NETWORK = 1e6


def world(**changes: object) -> World:
    """Return a world in which all is free but the bytes that pass the store's network card."""
    free, base = Rate(), load_world("lan")
    rates = base.rates
    assert rates is not None
    still = {
        name: msgspec.structs.replace(
            getattr(rates, name),
            **dict.fromkeys(("assemble", "compute", "evaluate", "encode", "cut", "sum", "merge"), free),
        )
        for name in ("mf", "lr")
    }
    start = msgspec.structs.replace(base.functions.cold, median=0.0)
    made = msgspec.structs.replace(
        base,
        hosts={
            "machine": msgspec.structs.replace(base.hosts["machine"], network=1e12),
            "head": msgspec.structs.replace(base.hosts["head"], network=NETWORK),
            "driver": msgspec.structs.replace(base.hosts["head"]),
        },
        functions=msgspec.structs.replace(base.functions, cold=start, warm=start),
        store=msgspec.structs.replace(base.store, latency=0.0, client=free, server=free),
        bus=msgspec.structs.replace(base.bus, way=0.0, client=free, server=free),
        objects=msgspec.structs.replace(base.objects, first_byte=0.0, rate=1e12),
        supervisor=msgspec.structs.replace(base.supervisor, host="driver", hears=free),
        rates=msgspec.structs.replace(rates, fetch=free, keep=free, step=free, **still),
    )
    return msgspec.structs.replace(made, **changes)


def job(workers: int = 4, **wishes: object) -> JobSpec:
    manifest = trials.dataset("mf").manifest
    rows = sum(file.rows for file in manifest.train)
    wanted = Wishes(batch_size=rows // (workers * 4), epochs=2, workers=workers, factors=9, **wishes)
    return job_of(wanted, manifest, "mf")


def run(spec: JobSpec, where: World, memory: int | None = None) -> Simulation:
    dataset = trials.dataset("mf")
    return simulate(spec, dataset, Environment(where, spec, dataset, memory))


def took(records: list[StepRecord]) -> list[tuple[StepRecord, float]]:
    """Return steps that train, and in which nothing is kept or evaluated, and what they took."""
    return [
        (after, after.time - before.time)
        for before, after in pairwise(records)
        if after.samples and not after.bytes_kept and after.heldout is before.heldout is None
    ]


@pytest.mark.parametrize("name", WORLDS.names())
def test_the_worlds_of_the_package(name: str) -> None:
    found = load_world(name)
    assert found.rates is not None
    done = run(job(), found)
    assert done.outcome.stop_reason == "epochs"
    assert 0.0 < done.outcome.started_at < 10.0


def test_a_seed_makes_the_same_times_to_the_last_digit() -> None:
    runs = [run(job(seed=seed), load_world("aws-lambda")) for seed in (1, 1, 2)]
    assert runs[0].records == runs[1].records
    assert runs[0].seconds == runs[1].seconds != runs[2].seconds


@pytest.mark.parametrize("pattern", ["broadcast", "allreduce", "scatter"])
def test_a_step_takes_what_its_bytes_take_to_pass_the_store(pattern: str) -> None:
    """One after the other, but that who has read all may publish while others still read.

    In a reduction mergers read and write, too, and need not wait for one another.
    """
    steps = took(run(job(pattern=pattern), world()).records)
    assert len(steps) >= 3
    for record, seconds in steps:
        both, read = (record.bytes_in + record.bytes_out) / NETWORK, record.bytes_in / NETWORK
        assert (read if pattern == "broadcast" else 0.7 * read) <= seconds <= both * (1 + 1e-9)


def test_functions_on_one_host_share_its_cores() -> None:
    """A step of four on two cores takes twice as long as one of two, whose rows are as many each."""
    seconds = {}
    for workers in (1, 2, 4):
        slow = world()
        assert slow.rates is not None
        mf = msgspec.structs.replace(slow.rates.mf, compute=Rate(call=1.0))
        slow = msgspec.structs.replace(
            slow,
            rates=msgspec.structs.replace(slow.rates, mf=mf),
            hosts={**slow.hosts, "machine": msgspec.structs.replace(slow.hosts["machine"], cores=2.0)},
            functions=msgspec.structs.replace(slow.functions, alone=False),
            store=msgspec.structs.replace(slow.store, host="machine"),
        )
        seconds[workers] = {round(one, 6) for _, one in took(run(job(workers), slow).records)}
    assert seconds == {1: {1.0}, 2: {1.0}, 4: {2.0}}


def test_a_smaller_function_has_a_part_of_a_core() -> None:
    spec, dataset = job(), trials.dataset("mf")
    half, whole, more = (
        Environment(load_world("aws-lambda"), spec, dataset, memory) for memory in (884, 1769, 3538)
    )
    [[slow], [quick], [same]] = [list(one.working((0, 0), "compute", 500)) for one in (half, whole, more)]
    assert slow == replace_most(quick, 884 / 1769)
    assert same == quick == replace_most(quick, 1.0)
    assert list(half.working((-1, 0), "keep", 500)) == list(whole.working((-1, 0), "keep", 500))


def replace_most(spell: Spell, most: float) -> Spell:
    return spell._replace(most=most)


def test_a_start_is_warm_where_a_function_has_ended_not_long_ago() -> None:
    found = load_world("lan")
    functions = msgspec.structs.replace(
        found.functions,
        cold=msgspec.structs.replace(found.functions.cold, median=9.0, spread=1.0),
        warm=msgspec.structs.replace(found.functions.warm, median=1.0, spread=1.0),
        idle=60.0,
    )
    spec, dataset = job(), trials.dataset("mf")
    place = Environment(msgspec.structs.replace(found, functions=functions), spec, dataset)
    assert place.starting((0, 0), 0.0) == 9.0
    place.over((0, 0), 20.0)
    place.over((1, 0), 20.0)
    assert place.starting((0, 1), 10.0) == 9.0  # nobody has ended by then
    assert place.starting((0, 1), 30.0) == 1.0
    assert place.starting((2, 0), 81.0) == 9.0  # too late for the other one


def test_starts_are_drawn_around_their_median() -> None:
    place = Environment(load_world("aws-lambda"), job(), trials.dataset("mf"))
    found = sorted(place.starting((worker, 0), 0.0) for worker in range(400))
    assert found[200] == pytest.approx(0.8, rel=0.1)
    assert sum(0.8 / 1.4 < one < 0.8 * 1.4 for one in found) / 400 == pytest.approx(0.68, abs=0.08)


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("cores = 4", "cores = 0", "cores is to be a number above 0, not 0"),
        ("network = 1250e6", "network = inf", "network is to be a number above 0, not inf"),
        ("latency = 1.5e-4", "latency = -1", "latency is to be a number from 0, not -1"),
        ("latency = 1.5e-4", "", "at store: the entry latency is missing"),
        ("latency = 1.5e-4", "latency = 1\ndelay = 1", "at store: there is no entry of the name delay"),
        ("spread = 1.1", "spread = 0.5", "spread is to be a factor from 1, not 0.5"),
        ('[store]\nhost = "head"', '[store]\nhost = "moon"', "store are on the host 'moon', and hosts are"),
        ('[store]\nhost = "head"', '[store]\nhost = "machine"', "where others are, too"),
        ('[functions]\nhost = "machine"', '[functions]\nhost = "machine"\nmemory = 0', "MB from 1, not 0"),
        (
            '[functions]\nhost = "machine"',
            '[functions]\nhost = "machine"\nwhole_core = 9',
            "there has to be a memory",
        ),
        ("[bus]", "[bus", "not a world"),
    ],
)
def test_what_is_no_world_says_where_it_is_wrong(tmp_path, before: str, after: str, told: str) -> None:
    text = WORLDS.text("lan")
    assert before in text
    (tmp_path / "ours.toml").write_text(text.replace(before, after, 1))
    with pytest.raises(UsageError) as caught:
        load_world(str(tmp_path / "ours.toml"))
    assert told in str(caught.value)
    assert "ours.toml" in str(caught.value)


def test_an_unknown_world_names_those_there_are() -> None:
    with pytest.raises(
        UsageError, match="no such world: expected aws-lambda, lan, published-ibm, or a TOML file"
    ):
        load_world("moon")
