"""Money against time: fixed numbers of workers, the published auto-tuner and our own, in virtual worlds.

    python benchmarks/frontier.py DATASET [--target 0.848] [--start 10] [--floor 5] [--worlds NAME ...]

DATASET is a folder that ``mlless partition`` made of MovieLens-1M. Gradients, messages and decisions are
those of a real job; starts, cores, network cards and fits take what they take in the world. Printed for every
world, with its prices: each run to the target and what became of its workers. Told last is whether a fixed
number beats a policy in both money and time by more than 5 %.
"""

from __future__ import annotations

import argparse
import math
import time

import mlless
from mlless.recipes import job_of
from mlless.simulation.environment import Environment
from mlless.simulation.jobs import Simulation, simulate
from mlless.simulation.world import load_world
from mlless.wishes import Wishes

TARIFFS = {"aws-lambda": "aws-lambda-x86", "published-ibm": "published-ibm"}  # that go with a world
FIXED = (1, 2, 4, 8, 10)
MARGIN = 1.05


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset")
    parser.add_argument("--target", default=0.848, type=float)
    parser.add_argument("--start", default=10, type=int)
    parser.add_argument("--floor", default=5, type=int)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--worlds", nargs="+", default=list(TARIFFS), choices=list(TARIFFS))
    parser.add_argument("--tolerance", type=float, help="percent, of the published tuner")
    options = parser.parse_args()
    dataset = mlless.open_dataset(options.dataset)

    def run(name: str, workers: int, tuner: str = "off") -> Simulation:
        wishes = Wishes(
            workers=workers,
            batch_size=options.batch_size,
            target=f"rmse={options.target}",
            tariff=TARIFFS[name],
            tuner=tuner,  # type: ignore[arg-type]
            min_workers=None if tuner == "off" else options.floor,
            tuner_tolerance=options.tolerance if tuner == "published" else None,
        )
        began = time.monotonic()
        spec = job_of(wishes, dataset.manifest, dataset.location)
        there = Environment(load_world(name), spec, dataset)
        done = simulate(spec, dataset, there, most_turns=math.inf, longest=math.inf)
        assert done.bill is not None
        counts = [record.workers for record in done.records]
        course = [f"{n} from step {counts.index(n)}" for n in sorted(set(counts), reverse=True)]
        print(
            f"{name:14} {tuner:10} {workers:3} {done.seconds:8.1f} s  ${done.bill.total:.5f}  "
            f"{len(counts):5} steps, {done.records[-1].epoch:4.1f} epochs, "
            f"{done.outcome.stop_reason} {done.outcome.model.heldout['rmse']:.4f}  "
            f"workers {', '.join(course)}  ({time.monotonic() - began:.0f} s of this machine)",
            flush=True,
        )
        for record in done.records:
            decision = record.decision
            if decision is not None and (decision.action == "leave" or record.step == 0):
                numbers = ", ".join(f"{name} {value:.4g}" for name, value in decision.numbers.items())
                print(f"      step {record.step}: {decision.why} ({numbers})")
        looks = [record.decision for record in done.records if record.decision]
        if looks and not any(look.action == "leave" for look in looks):
            print(f"      nobody left in {len(looks)} looks; the last: {looks[-1].why}")
        return done

    for name in options.worlds:
        fixed = {workers: run(name, workers) for workers in sorted({*FIXED, options.start})}
        for tuner in ("published", "economy"):
            tuned = run(name, options.start, tuner)
            for workers, other in fixed.items():
                dearer = _dollars(tuned) / _dollars(other)
                slower = tuned.seconds / other.seconds
                verdict = "WORSE IN BOTH" if min(dearer, slower) > MARGIN else ""
                print(f"      against {workers:2}: money x {dearer:.3f}, time x {slower:.3f} {verdict}")


def _dollars(done: Simulation) -> float:
    assert done.bill is not None
    return done.bill.total


if __name__ == "__main__":
    main()
