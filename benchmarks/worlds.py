"""The same jobs for real, on a Redis of this machine, and in a world: time a step, and bytes.

    python benchmarks/fit_world.py machine.toml --store redis://127.0.0.1:6379 --ratings DATASET
    python benchmarks/worlds.py DATASET machine.toml --store redis://127.0.0.1:6379 [--workers 4] [--rounds 3]

Patterns and rounds are interleaved. Fit the world on the same data set, at about the same time: on a machine
that does other things besides, give both a priority above them.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
from itertools import pairwise

from mlless.data.dataset import Dataset, open_dataset
from mlless.deployment import Deployment
from mlless.driver import run_job
from mlless.job import JobSpec
from mlless.recipes import job_of
from mlless.records import StepRecord
from mlless.simulation.environment import Environment
from mlless.simulation.jobs import simulate
from mlless.simulation.world import World, load_world
from mlless.wishes import Wishes

PATTERNS = ("broadcast", "allreduce", "scatter")


def real(spec: JobSpec, dataset: Dataset, deployment: Deployment) -> list[StepRecord]:
    """Return the steps of a real job."""
    records: list[StepRecord] = []
    with tempfile.TemporaryDirectory() as out:
        run_job(spec, dataset, f"{out}/run", deployment=deployment, listen=records.append, keeps=False)
    return records


def virtual(spec: JobSpec, dataset: Dataset, world: World) -> list[StepRecord]:
    """Return the steps of the same job in a world."""
    environment = Environment(world, spec, dataset)
    return simulate(spec, dataset, environment, most_turns=math.inf, longest=math.inf).records


def step(records: list[StepRecord]) -> float:
    """Return the milliseconds of the usual step."""
    return 1e3 * statistics.median(after.time - before.time for before, after in pairwise(records))


def moved(records: list[StepRecord]) -> list[tuple[int, int]]:
    """Return the bytes that were published and read in each step."""
    return [(one.bytes_out, one.bytes_in) for one in records]


def main() -> None:
    """Run, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("world")
    parser.add_argument("--store", default="redis://127.0.0.1:6379")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=12_000)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    dataset, world = open_dataset(asked.dataset), load_world(asked.world)
    specs = {
        pattern: job_of(
            Wishes(workers=asked.workers, batch_size=asked.batch_size, epochs=asked.epochs, pattern=pattern),
            dataset.manifest,
            dataset.address,
        )
        for pattern in PATTERNS
    }
    runs: dict[str, list[list[StepRecord]]] = {pattern: [] for pattern in PATTERNS}
    for _ in range(asked.rounds):
        for pattern, spec in specs.items():
            runs[pattern].append(real(spec, dataset, Deployment(store=asked.store)))
    print("| pattern | real, ms a step (of rounds) | world, ms a step | world / real | bytes |")
    print("|---|---|---|---|---|")
    for pattern, spec in specs.items():
        there = virtual(spec, dataset, world)
        steps = [step(records) for records in runs[pattern]]
        usual, found = statistics.median(steps), step(there)
        same = all(moved(records) == moved(there) for records in runs[pattern])
        each = ", ".join(f"{one:.1f}" for one in sorted(steps))
        told = "equal" if same else "differ"
        print(
            f"| {pattern} | {usual:.1f} ({each}) | {found:.1f} | {found / usual:.2f} | {told} |", flush=True
        )


if __name__ == "__main__":
    main()
