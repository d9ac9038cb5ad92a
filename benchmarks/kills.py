"""What kills come to: jobs whose workers are killed at steps that a seed draws, beside one left alone.

    python benchmarks/kills.py DATASET [--seeds 10] [--kills 10] [--channels "" STORE STORE,BUS]

DATASET is one of ratings. Channels are URLs, a store's or a store's and a bus's; "" are those of this
machine. All kills are within the first eight of twelve epochs: jobs are short, and late kills do no harm.
The last job of each channel loses all its workers at once. Printed are the held-out RMSE, its difference to
the undisturbed job, how many workers were lost, and seconds.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import mlless
from mlless.records import StepRecord
from mlless.supervisor import Supervisor

_EPOCHS, _WITHIN = 12, 8


@contextmanager
def pids() -> Iterator[dict[tuple[int, int], int]]:
    """Tell the process of each function, by worker and generation, while the block runs."""
    known: dict[tuple[int, int], int] = {}
    before = Supervisor.__init__

    def begin(self: Supervisor, *arguments: Any, **options: Any) -> None:
        before(self, *arguments, **options)
        self._pids = known

    Supervisor.__init__ = begin  # type: ignore[method-assign]
    try:
        yield known
    finally:
        Supervisor.__init__ = before  # type: ignore[method-assign]


def kill(known: dict[tuple[int, int], int], worker: int) -> None:
    """Kill the newest function of a worker."""
    newest = max(generation for who, generation in known if who == worker)
    os.kill(known[worker, newest], signal.SIGKILL)


def run(dataset: str, channels: str, workers: int, plan: dict[int, list[int]], on_loss: str) -> Any:
    """Train, and kill the workers that the plan names by step; return the run's summary."""
    store, _, bus = channels.partition(",")
    places = {"store": store, **({"bus": bus} if bus else {})} if store else {}
    left = dict(plan)

    with pids() as known, tempfile.TemporaryDirectory() as out:

        def listen(record: StepRecord) -> None:
            for worker in left.pop(record.step, ()):  # once, though the job may come to the step again
                kill(known, worker)

        return mlless.train(
            dataset,
            out=f"{out}/run",
            workers=workers,
            epochs=_EPOCHS,
            patience=None,
            on_loss=on_loss,
            verbose=False,
            listen=listen,
            **places,
        ).summary


def main() -> None:
    """Run the jobs and print what came of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("--channels", nargs="*", default=[""])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--on-loss", default="replace")
    asked = parser.parse_args()
    print("| channels | seed | held-out RMSE | difference | lost | s | ended by |")
    print("|---|---|---|---|---|---|---|")
    for channels in asked.channels:
        calm = run(asked.dataset, channels, asked.workers, {}, asked.on_loss)
        within = calm.steps * _WITHIN // _EPOCHS
        show(channels, "none", calm, calm)
        for seed in range(asked.seeds):
            draw = random.Random(seed)
            steps = sorted(draw.sample(range(2, within), asked.kills))
            plan = {step: [draw.randrange(asked.workers)] for step in steps}
            show(channels, str(seed), run(asked.dataset, channels, asked.workers, plan, asked.on_loss), calm)
        if asked.on_loss == "replace":
            plan = {within // 2: list(range(asked.workers))}
            show(channels, "all at once", run(asked.dataset, channels, asked.workers, plan, "replace"), calm)


def show(channels: str, seed: str, summary: Any, calm: Any) -> None:
    """Print a row."""
    rmse, before = summary.heldout["rmse"], calm.heldout["rmse"]
    name = ", ".join(one.partition(":")[0] for one in channels.split(",")) or "embedded"
    print(
        f"| {name} | {seed} | {rmse:.4f} | {rmse - before:+.4f} | {summary.lost} |"
        f" {summary.wall_seconds:.1f} | {summary.stop_reason} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
