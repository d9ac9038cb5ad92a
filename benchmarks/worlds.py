"""The same jobs for real, on a Redis of this machine, and in a world: time a step, and bytes.

    python benchmarks/fit_world.py machine.toml --store redis://127.0.0.1:6379 --ratings DATASET
    python benchmarks/worlds.py DATASET machine.toml --store redis://127.0.0.1:6379 [--workers 4] [--rounds 3]

MLLess by each pattern, PyWren and Cirrus.

Jobs and rounds are interleaved. Fit the world on the same data set, at about the same time: on a machine
that does other things besides, give both a priority above them.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from itertools import pairwise
from pathlib import Path

import msgspec

from mlless.data.dataset import Dataset, open_dataset
from mlless.deployment import Deployment
from mlless.driver import run_job
from mlless.locations import place_of
from mlless.records import StepRecord, StepTimes
from mlless.simulation.environment import Environment
from mlless.simulation.world import World, load_world
from mlless.turns import SYSTEMS
from mlless.wishes import Wishes

PATTERNS = ("broadcast", "allreduce", "scatter")
OTHERS = ("pywren", "cirrus")
PARTS = StepTimes.__struct_fields__


class Job:
    """A job that is run for real and in a world: MLLess by a pattern, or another system."""

    def __init__(self, name: str, wishes: Wishes, dataset: Dataset) -> None:
        self.name, self._dataset = name, dataset
        self._system = SYSTEMS[name if name in OTHERS else "mlless-isp"]
        pattern = {"pattern": name} if name in PATTERNS else {}
        self.spec = self._system.plan(msgspec.structs.replace(wishes, **pattern), dataset)

    def real(self, deployment: Deployment) -> list[StepRecord]:
        """Return the steps of the real job."""
        records: list[StepRecord] = []
        with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as out:
            if self.name in PATTERNS:
                run_job(
                    self.spec, self._dataset, f"{out}/run",
                    deployment=deployment, listen=records.append, keeps=False,
                )  # fmt: skip
            else:
                self._system.run(
                    self.name, self.spec, self._dataset, place_of(f"{out}/run"),
                    deployment=deployment, listen=records.append,
                )  # fmt: skip
        return records

    def virtual(self, world: World) -> list[StepRecord]:
        """Return the steps of the same job in a world."""
        environment = Environment(world, self.spec, self._dataset)
        play = self._system.play(self.spec, self._dataset, Deployment())
        return play(environment, lambda record: None).records

    def told(self, records: list[StepRecord], there: list[StepRecord]) -> str:
        """Return whether both have moved the same bytes.

        What a worker of Cirrus pushes depends on who was quicker; what all pull does not.
        """
        if self.name != "cirrus":
            return "equal" if moved(records) == moved(there) else "differ"
        pushed, pulled = ([sum(one[end] for one in moved(of)) for of in (records, there)] for end in (0, 1))
        return (
            f"pulled {'equal' if pulled[0] == pulled[1] else 'differ'}, pushed x {pushed[1] / pushed[0]:.3f}"
        )


def usual(records: list[StepRecord]) -> list[tuple[StepRecord, float]]:
    """Return the steps that train and hold up nothing else, and what they took."""
    return [(after, after.time - before.time) for before, after in pairwise(records) if after.samples]


def step(records: list[StepRecord]) -> float:
    """Return the milliseconds of the usual step."""
    return 1e3 * statistics.median(took for _, took in usual(records))


def split(records: list[StepRecord]) -> list[float]:
    """Return the milliseconds of each part of the usual step, in the mean of its workers."""
    return [1e3 * statistics.median(getattr(one.times, part) for one, _ in usual(records)) for part in PARTS]


def moved(records: list[StepRecord]) -> list[tuple[int, int]]:
    """Return the bytes that were published and read in each step."""
    return [(one.bytes_out, one.bytes_in) for one in records]


def main() -> None:
    """Run, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("world")
    parser.add_argument("--store", default="redis://127.0.0.1:6379")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=12_000)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--jobs", default=",".join((*PATTERNS, *OTHERS)))
    asked = parser.parse_args()
    dataset, world = open_dataset(asked.dataset), load_world(asked.world)
    wishes = Wishes(workers=asked.workers, batch_size=asked.batch_size, epochs=asked.epochs)
    jobs = [Job(name, wishes, dataset) for name in asked.jobs.split(",")]
    runs: dict[str, list[list[StepRecord]]] = {job.name: [] for job in jobs}
    for _ in range(asked.rounds):
        for job in jobs:
            runs[job.name].append(job.real(Deployment(store=asked.store)))
    print("| job | real, ms a step (of rounds) | world, ms a step | world / real | bytes |")
    print("|---|---|---|---|---|")
    parts = []
    for job in jobs:
        there = job.virtual(world)
        steps = [step(records) for records in runs[job.name]]
        middle, found = statistics.median(steps), step(there)
        each = ", ".join(f"{one:.1f}" for one in sorted(steps))
        told = ", ".join({job.told(records, there) for records in runs[job.name]})
        print(
            f"| {job.name} | {middle:.1f} ({each}) | {found:.1f} | {found / middle:.2f} | {told} |",
            flush=True,
        )
        real = [statistics.median(of) for of in zip(*map(split, runs[job.name]), strict=True)]
        pairs = (f"{here:.2f}, {one:.2f}" for here, one in zip(real, split(there), strict=True))
        parts.append(f"| {job.name} | {' | '.join(pairs)} |")
    print("\nWhere the ms of a step go, for real and in the world:\n")
    print(f"| job | {' | '.join(PARTS)} |\n|---|{'---|' * len(PARTS)}")
    print("\n".join(parts))


if __name__ == "__main__":
    main()
