"""Many workers, the ways of today against those of before: for real over a store, and in virtual worlds.

    python benchmarks/many_workers.py [DATASET] [--store redis://...] [--workers 4 8 24] [--rounds 3]
        [--worlds published-ibm lan --epochs 10 --virtual-workers 24]

DATASET is a folder that ``mlless partition`` made of ratings; without one, 8,000,000 ratings in the shape of
ML-20M are generated. "Before" shares users, broadcasts all updates and exchanges after each mini-batch. "Now"
are the defaults. For real, both take turns over one epoch. Printed are MB read by workers, CPU and wall
seconds of training (start-up left out), the median of each and of the ratios, and one worker of the defaults.
In a world, "before" trains so many epochs; "now" trains until it has the held-out RMSE that "before" ended
with. Printed are the virtual seconds of an epoch and to that RMSE.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
from pathlib import Path

from shapes import ML_20M, partitioned

import mlless
from mlless.data.dataset import Dataset
from mlless.recipes import job_of
from mlless.records import StepRecord
from mlless.simulation.environment import Environment
from mlless.simulation.jobs import simulate
from mlless.simulation.world import load_world
from mlless.wishes import Wishes

BEFORE = {"share_users": True, "pattern": "broadcast", "local_steps": 1}
WAYS: dict[str, dict[str, object]] = {"before": BEFORE, "now": {}}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", nargs="?", type=Path)
    parser.add_argument("--store", help="URL; this machine's own channel if left out")
    parser.add_argument("--workers", type=int, nargs="*", default=[4, 8, 24])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--worlds", nargs="*", default=["published-ibm", "lan"])
    parser.add_argument("--epochs", type=int, default=10, help="of the old ways in a world")
    parser.add_argument("--virtual-workers", type=int, default=24)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mlless-benchmark-") as folder:
        place = Path(folder)
        data = asked.dataset or partitioned(ML_20M, 8_000_000, place)
        if asked.workers:
            _for_real(data, asked.store, asked.workers, asked.rounds, place)
        for name in asked.worlds:
            _in_world(mlless.open_dataset(data), name, asked.virtual_workers, asked.epochs)


def _for_real(data: Path, store: str | None, counts: list[int], rounds: int, place: Path) -> None:
    def train(workers: int, way: dict[str, object]) -> tuple[float, float, float]:
        wishes = {**way, **({"store": store} if store else {})}
        run = mlless.train(
            data,
            model="mf",
            out=place / "run",
            overwrite=True,
            verbose=False,
            workers=workers,
            epochs=1,
            **wishes,
        )  # type: ignore[misc]
        one = run.summary
        wall, cpu = one.wall_seconds - one.startup_seconds, one.cpu_seconds - one.startup_cpu_seconds
        return one.bytes_read / 1e6, cpu, wall

    print(f"{'P':>3} {'':8} {'MB read':>9} {'CPU s':>8} {'wall s':>8}")
    _line(
        1,
        "now",
        [statistics.median(values) for values in zip(*[train(1, {}) for _ in range(rounds)], strict=True)],
    )
    for workers in counts:
        taken = {name: [] for name in WAYS}  # type: dict[str, list[tuple[float, float, float]]]
        for turn in range(rounds):
            for name in list(WAYS)[:: -1 if turn % 2 else 1]:
                taken[name].append(train(workers, WAYS[name]))
        for name, all_of_it in taken.items():
            _line(workers, name, [statistics.median(values) for values in zip(*all_of_it, strict=True)])
        pairs = [
            [old / new for old, new in zip(*pair, strict=True)]
            for pair in zip(taken["before"], taken["now"], strict=True)
        ]
        _line(workers, "ratio", [statistics.median(values) for values in zip(*pairs, strict=True)])


def _line(workers: int, name: str, values: list[float]) -> None:
    print(
        f"{workers:3} {name:8} "
        + " ".join(f"{value:{width}.2f}" for value, width in zip(values, (9, 8, 8), strict=True)),
        flush=True,
    )


def _in_world(dataset: Dataset, name: str, workers: int, epochs: int) -> None:
    world = load_world(name)
    rate, latency = world.hosts[world.store.host].network / 1e6, world.store.latency

    def run(way: str, **limits: object) -> tuple[float, float, str]:
        """Return the virtual seconds of an epoch and of the job, and the last held-out RMSE."""
        wishes = Wishes(workers=workers, store_rate=rate, store_latency=latency, **WAYS[way], **limits)  # type: ignore[arg-type]
        spec = job_of(wishes, dataset.manifest, dataset.location)
        began = time.monotonic()
        done = simulate(
            spec, dataset, Environment(world, spec, dataset), most_turns=math.inf, longest=math.inf
        )
        rounds = [record for record in done.records if record.heldout]
        last = rounds[-1]
        seconds, to_last = _epoch(rounds), last.time - done.records[0].time
        print(
            f"{name:14} {way:7} P {workers:3}  {seconds:8.2f} s an epoch, {to_last:8.2f} s to rmse "
            f"{last.heldout['rmse']:.4f} in {last.epoch:.1f} epochs, {len(done.records)} steps; reads "
            f"{sum(record.bytes_in for record in done.records) / last.epoch / 1e6:8.1f} MB an epoch  "
            f"({time.monotonic() - began:.0f} s of this machine)",
            flush=True,
        )
        return seconds, to_last, f"{last.heldout['rmse']:.6f}"

    old, old_total, target = run("before", epochs=epochs, patience=epochs)
    new, new_total, _ = run("now", epochs=4 * epochs, patience=4 * epochs, target=f"rmse={target}")
    print(f"{name:14} before / now: an epoch {old / new:.1f}, to the same RMSE {old_total / new_total:.1f}")


def _epoch(rounds: list[StepRecord]) -> float:
    """Return the seconds of the mean epoch after the first evaluation."""
    first, last = rounds[0], rounds[-1]
    return (last.time - first.time) / (last.epoch - first.epoch)


if __name__ == "__main__":
    main()
