"""Steps a second, and quality, by slack, where in each step one worker is slower than the others.

    python benchmarks/slack.py [--slack 0 1 3 8] [--workers 4] [--factor 5] [--sync isp] [--epochs 8]

Jobs on generated ratings and clicks, by the real roles on the virtual clock. A drawn worker takes so many
times as long for its mini-batch. One that is always the slowest would set the pace whatever the slack.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from pathlib import Path
from typing import Any

from mlless.data.partition import partition
from mlless.data.synthetic import write_clicks, write_ratings
from mlless.recipes import job_of
from mlless.simulation.conditions import Uneven
from mlless.simulation.jobs import simulate
from mlless.wishes import Wishes


def main() -> None:
    """Print a line a job."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--slack", type=int, nargs="+", default=[0, 1, 3, 8])
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--factor", type=float, default=5.0)
    parser.add_argument("--sync", choices=["bsp", "isp"], default="isp")
    parser.add_argument("--epochs", type=int, default=8)
    asked = parser.parse_args()

    def slower(worker: int, step: int) -> float:
        return asked.factor if random.Random(step).randrange(asked.workers) == worker else 1.0

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_ratings(folder / "ratings.csv", users=300, items=120, rows=16_000, factors=3, seed=1)
        write_clicks(folder / "clicks.svm", rows=16_000, features=500, per_row=10, seed=1)
        for source in ("ratings.csv", "clicks.svm"):
            dataset = partition(folder / source, folder / source.split(".")[0])
            for slack in asked.slack:
                wishes: dict[str, Any] = {
                    "workers": asked.workers,
                    "epochs": asked.epochs,
                    "sync": asked.sync,
                }
                job = job_of(Wishes(**wishes, slack=slack, batch_size=100), dataset.manifest, "generated")
                durations = Uneven(work={"compute": 1e-3, "evaluate": 1e-5}, message=1e-3, slower=slower)
                done = simulate(job, dataset, durations)
                metrics = ", ".join(
                    f"{name} {value:.4f}" for name, value in done.outcome.model.heldout.items()
                )
                rate = len(done.records) / done.seconds
                print(f"{source:12} slack {slack}: {rate:5.2f} steps/s, {metrics}", flush=True)


if __name__ == "__main__":
    main()
