"""Runs an experiment: its jobs one after the other, each a comparison of its own, and one page of all."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from mlless.channels.opening import open_objects
from mlless.data.dataset import Dataset, open_dataset
from mlless.data.partition import partition
from mlless.data.synthetic import write_ratings
from mlless.data.synthetic_columns import write_columns
from mlless.deployment import Deployment
from mlless.errors import DatasetError, MissingObject, UsageError
from mlless.locations import Directory, place_of
from mlless.options import nearest
from mlless.planning import PlanFile, Work
from mlless.report.findings import Findings, findings
from mlless.report.recorded import Recorded
from mlless.report.wording import count
from mlless.simulation.world import World, load_world
from mlless.turns import Plan, Told, admitted, compare
from mlless.wishes import Wishes

_DENSEST = 0.4  # of all pairs of users and items, those that are made up: more take very long to draw


def check_names(plan: PlanFile, data: Mapping[str, str], only: Sequence[str]) -> None:
    """Raise UsageError if data are named for a job that there is not, or no such contestant takes part."""
    assert plan.experiment is not None
    for what, names, known in (("job", data, plan.experiment.jobs), ("contestant", only, plan.tables)):
        for name in names:
            if name not in known:
                raise UsageError(f"no such {what}: {name}", cure=nearest(name, list(known)))


def run_experiment(
    plan: PlanFile,
    out: str,
    *,
    data: Mapping[str, str],
    asked: Mapping[str, object],
    only: Sequence[str] = (),
    scale: float | None = None,
    world: World | None = None,
    deployment: Deployment,
    overwrite: bool = False,
    say: Callable[[str], object],
    tell: Callable[[Told], object],
) -> tuple[Findings, dict[str, dict[str, Recorded]]]:
    """Run all jobs; return what they came to, and the runs by job and contestant.

    ``data`` are the data sets that the user names, by job: others are made up. ``asked`` are the settings
    that go over those of the experiment. ``only`` these contestants take part, or else all. What is there
    already is not made again.
    """
    experiment = plan.experiment
    assert experiment is not None
    times = scale or experiment.scale
    where = (world or load_world(experiment.world)).slowed(times)
    runs: dict[str, dict[str, Recorded]] = {}
    told: dict[str, str] = {}
    every: list[str] = []
    for name, job in experiment.jobs.items():
        dataset = open_dataset(data[name]) if name in data else _made_up(name, job, out, times, say)
        rows = count(dataset.manifest.rows, "row")
        told[name] = f"{rows} of {data[name]}" if name in data else f"{rows} made up"
        wanted = [
            one for one in plan.contestants(Wishes(), name, asked, times) if not only or one.name in only
        ]
        taking, notes = admitted(wanted, dataset, where)
        for note in notes:
            say(f"{name}: {note}")
        turns = Plan(dataset.address, dataset.manifest.fingerprint, deployment, tuple(taking), 1, where)
        found, middle = compare(turns, f"{out}/{name}", overwrite=overwrite, tell=tell)
        every += [f"{name}: {note}." for note in (*notes, *found.notes[1:])]
        order = [one.name for one in taking]
        runs[name] = {run.name: run for run in sorted(middle, key=lambda run: order.index(run.name))}
    came = findings(experiment, runs, scale=times, data=told, notes=tuple(every))
    came = msgspec.structs.replace(came, world=where.name)
    text = msgspec.json.format(msgspec.json.encode(came), indent=2)
    open_objects(place_of(out)).put(f"{plan.title}.json", text + b"\n")
    return came, runs


def _made_up(name: str, job: Work, out: str, scale: float, say: Callable[[str], object]) -> Dataset:
    """Return made-up data of a job's shape, at a scale; those of before are taken again."""
    rows, place = round(job.rows * scale), place_of(out)
    where = f"{out}/data/{name}-{rows}"
    try:
        return open_dataset(where)
    except (DatasetError, MissingObject):
        pass
    if not isinstance(place, Directory):
        cure = f"name data with --data {name}=DATASET, or let --out be a folder"
        raise UsageError("data are made up in a folder only", where=out, cure=cure)
    say(f"{name}: makes up {count(rows, 'row')}")
    Path(where).parent.mkdir(parents=True, exist_ok=True)
    users, items, features = (round(one * scale) for one in (job.users, job.items, job.features))
    with tempfile.TemporaryDirectory(dir=Path(where).parent) as folder:
        raw = Path(folder) / "rows"
        if job.features:
            write_columns(raw, rows=rows)
            return partition(raw, where, format="criteo", features=max(1, features), numeric="minmax")
        if rows > _DENSEST * users * items:
            raise UsageError(
                f"{name}: at so small a scale there are not enough users and items", found=f"{scale:g}"
            )
        write_ratings(raw, users=users, items=items, rows=rows)
        return partition(raw, where, format="ratings")
