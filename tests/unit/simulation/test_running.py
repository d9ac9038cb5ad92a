"""Systems of the field in a virtual world: the same halves as for real, and the same bits."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import pytest
import trials

from mlless.baselines import cirrus
from mlless.baselines.contract import System, Tables
from mlless.deployment import Deployment
from mlless.errors import UsageError
from mlless.locations import place_of
from mlless.report.history import read_history, read_summary
from mlless.simulation.environment import Environment
from mlless.simulation.jobs import Simulation
from mlless.simulation.running import check_deployment, run_in_world
from mlless.simulation.world import Rate, load_world
from mlless.turns import SYSTEMS
from mlless.wishes import Wishes

WISHES = Wishes(workers=3, batch_size=50, epochs=2, tariff="aws-lambda-x86")
ALONE = msgspec.structs.replace(WISHES, workers=1)
PLAYED = [name for name, system in SYSTEMS.items() if not system.real]


def played(name: str | System, kind: str, wishes: Wishes = WISHES, world: str = "lan") -> Simulation:
    system, dataset = SYSTEMS[name] if isinstance(name, str) else name, trials.dataset(kind)
    spec = system.plan(wishes, dataset)
    play = system.play(spec, dataset, Deployment())
    there = system.placed(load_world(world))
    return play(Environment(there, spec, dataset), lambda record: None)


def same(left: Tables, right: Tables) -> None:
    for name, table in left.items():
        assert np.array_equal(table.view(np.uint32), right[name].view(np.uint32)), name


@pytest.mark.parametrize("name", PLAYED)
def test_a_system_trains_in_a_world_and_does_so_again(name: str) -> None:
    system = SYSTEMS[name]
    runs = [played(name, kind) for kind in 2 * system.kinds]
    for done in runs:
        assert done.outcome.stop_reason == "epochs"
        assert done.bill is not None
        assert done.bill.total > 0.0
        assert 0.0 < done.records[0].time <= done.records[-1].time <= done.seconds
        assert all(np.isfinite(table).all() for table in done.tables.values())
    half = len(runs) // 2
    for once, again in zip(runs[:half], runs[half:], strict=True):
        assert once.records == again.records
        assert once.seconds == again.seconds


def test_pywren_with_updates_takes_the_steps_of_mlless_and_much_longer() -> None:
    ours, theirs = played("mlless-bsp", "mf"), played("pywren-updates", "mf")
    same(ours.tables, theirs.tables)
    assert theirs.seconds > 3 * ours.seconds


@pytest.mark.parametrize("kind", ["mf", "lr"])
def test_cirrus_with_one_worker_takes_the_steps_of_one_that_is_alone(kind: str) -> None:
    own = SYSTEMS["cirrus"]
    system = type(own)(about="", wishes=own.wishes, entry=own.entry, lead=partial(cirrus.lead, least=0.0))
    theirs, ours = played(system, kind, ALONE), played("mlless-bsp", kind, ALONE)
    same(ours.tables, theirs.tables)
    assert [one.loss for one in theirs.records] == [one.loss for one in ours.records]
    assert sum(one.bytes_in for one in theirs.records) > 0


def test_the_server_of_cirrus_serves_one_request_at_a_time() -> None:
    """With a server that takes long, a step takes as long as all its requests one after the other."""
    lan = load_world("lan")
    assert lan.rates is not None
    model = msgspec.structs.replace(lan.rates.mf, pull=Rate(call=1.0), push=Rate(call=2.0))
    slow = msgspec.structs.replace(lan, rates=msgspec.structs.replace(lan.rates, mf=model))
    system, dataset = SYSTEMS["cirrus"], trials.dataset("mf")
    spec = system.plan(WISHES, dataset)
    done = system.play(spec, dataset, Deployment())(Environment(slow, spec, dataset), lambda record: None)
    requests = 3.0 * sum(one.samples > 0 for one in done.records) * spec.workers
    assert requests <= done.seconds < requests * 1.3


@pytest.mark.parametrize("kind", ["mf", "lr"])
@pytest.mark.parametrize("name", ["pytorch-matched", "pytorch-sparse"])
def test_pytorch_matched_takes_the_steps_of_mlless(name: str, kind: str) -> None:
    ours, theirs = played("mlless-bsp", kind), played(name, kind)
    same(ours.tables, theirs.tables)


def test_a_ring_waits_for_all_and_sends_at_the_speed_of_a_network_card() -> None:
    """A step of dense gradients takes as long as they take to go round, and twice as many bytes do."""
    lan, seconds = load_world("lan"), []
    for network in (1e5, 0.5e5):
        machine = msgspec.structs.replace(lan.hosts["machine"], network=network)
        slow = msgspec.structs.replace(lan, hosts={**lan.hosts, "machine": machine})
        system, dataset = SYSTEMS["pytorch"], trials.dataset("mf")
        spec = system.plan(WISHES, dataset)
        world = system.placed(slow)
        done = system.play(spec, dataset, Deployment())(
            Environment(world, spec, dataset), lambda record: None
        )
        first, second = done.records[2:4]
        assert first.bytes_out == second.bytes_out > 0
        seconds.append(second.time - first.time)
        assert seconds[-1] == pytest.approx(second.bytes_out / 3 / network, rel=0.2)
    assert seconds[1] == pytest.approx(2 * seconds[0], rel=0.1)


def test_who_leads_is_billed_where_it_is_a_function() -> None:
    for name in ("mlless-isp", "pywren"):
        for world, billed in (("published-ibm", True), ("lan", False)):
            bill = played(name, "mf", world=world).bill
            assert bill is not None
            assert ("supervisor" in {one.what for one in bill.items}) is billed, (name, world)


def test_a_run_in_a_world_leaves_the_files_of_a_run(tmp_path: Path) -> None:
    dataset = trials.dataset("lr")
    spec = SYSTEMS["mlless-isp"].plan(WISHES, dataset)
    deployment = Deployment(memory=884)
    play = SYSTEMS["mlless-isp"].play(spec, dataset, deployment)
    lan = load_world("lan")
    heard: list[int] = []
    summary = run_in_world(
        play, "mlless-isp", spec, dataset, place_of(tmp_path / "run"),
        world=lan, deployment=deployment, listen=lambda record: heard.append(record.step),
    )  # fmt: skip
    assert summary == read_summary(place_of(tmp_path / "run"))
    records = read_history(place_of(tmp_path / "run"))
    assert [record.step for record in records] == heard
    assert records[-1].time <= summary.seconds <= summary.wall_seconds
    assert 0.0 < summary.cpu_seconds < 4 * summary.wall_seconds
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "model.safetensors",
        "history.jsonl",
        "summary.json",
    }


def test_a_job_in_a_world_is_nowhere_else() -> None:
    check_deployment(Deployment(memory=1024, time_limit=100))
    with pytest.raises(UsageError, match="a world has a store and runtime of its own"):
        check_deployment(Deployment(store="redis://there", runtime="lithops"))
