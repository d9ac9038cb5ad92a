"""Systems of the field in a virtual world: the same halves as for real, and the same bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trials

from mlless.deployment import Deployment
from mlless.errors import UsageError
from mlless.locations import place_of
from mlless.report.history import read_history, read_summary
from mlless.simulation.environment import Environment
from mlless.simulation.jobs import Simulation
from mlless.simulation.running import check_deployment, run_in_world
from mlless.simulation.world import load_world
from mlless.turns import SYSTEMS
from mlless.wishes import Wishes

WISHES = Wishes(workers=3, batch_size=50, epochs=2, tariff="aws-lambda-x86")
PLAYED = [name for name, system in SYSTEMS.items() if not system.real]


def played(name: str, kind: str) -> Simulation:
    system, dataset = SYSTEMS[name], trials.dataset(kind)
    spec = system.plan(WISHES, dataset)
    play = system.play(spec, dataset, Deployment())
    return play(Environment(load_world("aws-lambda"), spec, dataset), lambda record: None)


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
    for name, table in ours.tables.items():
        assert np.array_equal(table.view(np.uint32), theirs.tables[name].view(np.uint32)), name
    assert theirs.seconds > 3 * ours.seconds


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
