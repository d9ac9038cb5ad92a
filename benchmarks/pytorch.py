"""MLLess against PyTorch over gloo on the published ML-1M job, to a training loss of 0.74.

    pip install '.[compare]'
    python benchmarks/pytorch.py [--ratings ml-1m.parquet] [--rounds 3] [--workers 4]

The systems are those of ``mlless compare``. All factorise the same ratings (20 factors and biases, centred
ratings, start N(0, 0.1), no L2) from the same start, on the same mini-batches of 6,250 in the same order.
They use Nesterov's momentum of 0.8 and a rate of 8, and stop when the exponential average (weight 0.1) of
the mean squared error has come to the target. ``pytorch-matched`` and ``pytorch-sparse`` take the steps of
``mlless-bsp``; ``pytorch`` averages gradients, as published.

Systems take turns, and each round begins with another one. Printed: steps to the end, wall and CPU seconds of
training, and the medians over the rounds of MLLess against each system of PyTorch. Wall seconds are those
from the end of the first step to that of the last, since systems begin to count at different moments. CPU
seconds are those of all processes from their fork on, without the import of PyTorch, which is loaded before.

Without ``--ratings`` the data are generated, in the shape of ML-1M.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

import mlless
from mlless.data.dataset import Dataset
from mlless.data.synthetic import write_ratings
from mlless.deployment import Deployment
from mlless.locations import place_of
from mlless.report.history import read_history
from mlless.turns import SYSTEMS
from mlless.wishes import Wishes

OURS, OTHERS = ("mlless-bsp", "mlless-isp"), ("pytorch-matched", "pytorch-sparse", "pytorch")
Taken = tuple[int, float, float]  # steps, wall and CPU seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ratings", type=Path, help="a file of ratings, as mlless partition takes it")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--target", type=float, default=0.74)
    parser.add_argument("--systems", default=",".join((*OURS, *OTHERS)))
    options = parser.parse_args()
    names = options.systems.split(",")
    with tempfile.TemporaryDirectory(prefix="mlless-benchmark-") as folder:
        dataset = mlless.partition(options.ratings or _generated(folder), Path(folder) / "data", validation=0)
        wishes = Wishes(
            workers=options.workers, factors=20, batch_size=6250, optimizer="nesterov", learning_rate=8.0,
            l2=0.0, target=f"train_loss={options.target}", epochs=200, max_time=120.0,
        )  # fmt: skip
        taken: dict[str, list[Taken]] = {name: [] for name in names}
        print(f"{'':18}{'steps':>6}{'wall s':>9}{'CPU s':>9}")
        for number in range(options.rounds):
            first = number % len(names)
            for name in names[first:] + names[:first]:
                taken[name].append(_train(name, wishes, dataset, Path(folder) / "run"))
                _print(name, taken[name][-1])
    print("\nmedians")
    for name, rounds in taken.items():
        steps, wall, cpu = (statistics.median(column) for column in zip(*rounds, strict=True))
        _print(name, (int(steps), wall, cpu))
    for other in set(names) & set(OTHERS):
        for own in set(names) & set(OURS):
            pairs = list(zip(taken[own], taken[other], strict=True))
            wall, cpu = (statistics.median(a[n] / b[n] for a, b in pairs) for n in (1, 2))
            print(f"{own} / {other}: wall {wall:.3f} (1/{1 / wall:.1f}), CPU {cpu:.3f} (1/{1 / cpu:.1f})")


def _generated(folder: str) -> Path:
    path = Path(folder) / "ratings.csv"
    write_ratings(path, users=6040, items=3706, rows=1_000_209)
    return path


def _train(name: str, wishes: Wishes, dataset: Dataset, out: Path) -> Taken:
    system, place = SYSTEMS[name], place_of(out)
    summary = system.run(
        name,
        system.plan(wishes, dataset),
        dataset,
        place,
        deployment=Deployment(),
        listen=lambda record: None,
    )
    history = read_history(place)
    seconds = history[-1].time - history[0].time
    return len(history), seconds, summary.cpu_seconds - summary.startup_cpu_seconds


def _print(name: str, taken: Taken) -> None:
    print(f"{name:18}{taken[0]:6d}{taken[1]:9.3f}{taken[2]:9.3f}", flush=True)


if __name__ == "__main__":
    main()
