"""MLLess against PyTorch's DistributedDataParallel on the published ML-1M job, to a training loss of 0.74.

    pip install torch
    python benchmarks/pytorch_ddp.py [--ratings ml-1m.parquet] [--repeats 3] [--workers 4]

Both sides factorise the same ratings (20 factors and biases, centred ratings, start N(0, 0.1), no L2)
from the same start, on the same mini-batches of 6,250 in the same order, with Nesterov's momentum of
0.8, and stop when the exponential average (weight 0.1) of the workers' mean squared error has come to
the target. MLLess sums its workers' updates, DDP averages gradients: DDP's learning rate is therefore
that of MLLess times the number of workers, so that both take steps of the same size. DDP runs over
gloo, one thread a process, with dense gradients; its loss travels in an asynchronous all-reduce of one
number that overlaps with the backward pass, and its mini-batches are in memory before its clock
starts, while MLLess reads its own from disk within the clock.

Runs take turns. Printed for every run: steps to the target, wall and CPU seconds of training, the same
of start-up, and for MLLess where the mean step of a worker goes. At the end the medians of each side,
and the medians over the rounds of MLLess / PyTorch.

Training, of MLLess: from the first plan to the last step's record, its closing flush included; CPU
seconds of workers (from their fork) and driver. Of PyTorch: from a barrier after DDP is built to the
last step; CPU seconds of all threads of its processes.

Without ``--ratings`` the data are generated, in the shape of ML-1M.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

import mlless
from mlless.data.dataset import Dataset, open_dataset
from mlless.data.groups import RatingsGroup
from mlless.data.manifest import Ratings
from mlless.data.synthetic import write_ratings
from mlless.job import Factorization
from mlless.membership import Schedule, bounds_of, groups_of, order_of
from mlless.models.factorization import FactorizationModel
from mlless.stopping import SMOOTHING

FACTORS, BATCH, RATE, MOMENTUM, SEED = 20, 6250, 8.0, 0.8, 0
MOST_STEPS = 2000


class Timing(msgspec.Struct):
    """One run of one side; ``split`` are the milliseconds of a step, the mean over workers and steps."""

    side: str
    steps: int
    wall: float
    cpu: float
    startup_wall: float
    startup_cpu: float
    split: dict[str, float] = {}


def main() -> None:
    """Run the comparison, or, with ``--rank``, one of PyTorch's processes."""
    options = _arguments()
    if options.rank is not None:
        _pytorch_process(options)
        return
    with tempfile.TemporaryDirectory(prefix="mlless-benchmark-") as folder:
        data = Path(folder) / "data"
        mlless.partition(options.ratings or _generated(folder), data, validation=0)
        print(f"{'':12}{'steps':>6}{'wall s':>9}{'CPU s':>9}   start-up: {'wall s':>9}{'CPU s':>9}")
        rounds = []
        for _ in range(options.repeats):
            timings = [
                _pytorch(data, options),
                _mlless(data, folder, "bsp", options),
                _mlless(data, folder, "isp", options),
            ]
            for timing in timings:
                _print(timing)
            rounds.append({timing.side: timing for timing in timings})
    _conclude(rounds)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ratings", type=Path, help="a file of ratings, as mlless partition takes it")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--target", type=float, default=0.74)
    parser.add_argument("--significance", type=float, default=0.7)
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def _generated(folder: str) -> Path:
    path = Path(folder) / "ratings.csv"
    write_ratings(path, users=6040, items=3706, rows=1_000_209)
    return path


def _print(timing: Timing) -> None:
    print(
        f"{timing.side:12}{timing.steps:6d}{timing.wall:9.3f}{timing.cpu:9.3f}             "
        f"{timing.startup_wall:9.3f}{timing.startup_cpu:9.3f}",
        flush=True,
    )
    if timing.split:
        print(
            " " * 14 + ", ".join(f"{name} {ms:.2f}" for name, ms in timing.split.items()) + " ms", flush=True
        )


def _conclude(rounds: list[dict[str, Timing]]) -> None:
    print("\nmedians")
    for side in rounds[0]:
        runs = [timings[side] for timings in rounds]
        fields = ("steps", "wall", "cpu", "startup_wall", "startup_cpu")
        steps, *seconds = (statistics.median(getattr(run, name) for run in runs) for name in fields)
        _print(Timing(side, int(steps), *seconds))
    print("\nMLLess / PyTorch, medians over the rounds")
    for side in ("MLLess bsp", "MLLess isp"):
        wall = statistics.median(timings[side].wall / timings["PyTorch DDP"].wall for timings in rounds)
        cpu = statistics.median(timings[side].cpu / timings["PyTorch DDP"].cpu for timings in rounds)
        print(f"{side:12} wall {wall:.3f} (1/{1 / wall:.1f}), CPU {cpu:.3f} (1/{1 / cpu:.1f})")


# ---- MLLess ----


def _mlless(data: Path, folder: str, sync: Literal["bsp", "isp"], options: argparse.Namespace) -> Timing:
    run = mlless.train(
        data,
        model="mf",
        out=Path(folder) / f"run-{sync}",
        overwrite=True,
        verbose=False,
        workers=options.workers,
        batch_size=BATCH,
        sync=sync,
        significance=options.significance if sync == "isp" else None,
        factors=FACTORS,
        optimizer="nesterov",
        learning_rate=RATE,
        l2=0.0,
        merge="sum",
        target=f"train_loss={options.target}",
        seed=SEED,
    )
    history, summary = run.history(), run.summary
    losses = [record.train_loss for record in history]
    reached = next((n for n, loss in enumerate(losses, 1) if loss and loss <= options.target), len(losses))
    names = history[0].times.__struct_fields__
    return Timing(
        side=f"MLLess {sync}",
        steps=reached,
        wall=history[-1].time - summary.startup_seconds,
        cpu=summary.cpu_seconds - summary.startup_cpu_seconds,
        startup_wall=summary.startup_seconds,
        startup_cpu=summary.startup_cpu_seconds,
        split={name: statistics.mean(getattr(r.times, name) for r in history) * 1e3 for name in names},
    )


# ---- PyTorch ----


def _pytorch(data: Path, options: argparse.Namespace) -> Timing:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--data", str(data), "--port", str(port)]
    command += ["--workers", str(options.workers), "--target", str(options.target)]
    processes = [
        subprocess.Popen([*command, "--rank", str(rank)], stdout=subprocess.PIPE, env=environment)
        for rank in range(options.workers)
    ]
    outputs = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        sys.exit("a PyTorch process failed")
    ranks = [msgspec.json.decode(output, type=Timing) for output in outputs]
    return Timing(
        side="PyTorch DDP",
        steps=ranks[0].steps,
        wall=max(rank.wall for rank in ranks),
        cpu=sum(rank.cpu for rank in ranks),
        startup_wall=max(rank.startup_wall for rank in ranks),
        startup_cpu=sum(rank.startup_cpu for rank in ranks),
    )


def _pytorch_process(options: argparse.Namespace) -> None:
    began = time.monotonic()
    import torch
    from torch import distributed
    from torch.nn.parallel import DistributedDataParallel

    torch.set_num_threads(1)
    workers, rank = options.workers, options.rank
    where = f"tcp://127.0.0.1:{options.port}"
    distributed.init_process_group("gloo", init_method=where, rank=rank, world_size=workers)

    class Factors(torch.nn.Module):
        """The same tables as MLLess': the bias is the last column."""

        def __init__(self, start: dict[str, np.ndarray]) -> None:
            super().__init__()
            self.users = torch.nn.Embedding.from_pretrained(torch.from_numpy(start["users"]), freeze=False)
            self.items = torch.nn.Embedding.from_pretrained(torch.from_numpy(start["items"]), freeze=False)

        def forward(self, users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
            p, q = self.users(users), self.items(items)
            return (p[:, :FACTORS] * q[:, :FACTORS]).sum(1) + p[:, FACTORS] + q[:, FACTORS]

    dataset = open_dataset(options.data)
    shape = dataset.manifest.shape
    assert isinstance(shape, Ratings)
    parts, batches = _mini_batches(dataset, shape, workers, rank)
    tensors = [tuple(map(torch.from_numpy, batch)) for batch in batches]
    model = DistributedDataParallel(Factors(_start(shape)), gradient_as_bucket_view=True)
    rate = RATE * workers  # DDP averages what MLLess sums
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=MOMENTUM, nesterov=True)
    distributed.barrier()
    startup_wall, startup_cpu = time.monotonic() - began, time.process_time()

    began, average, steps = time.monotonic(), None, 0
    while steps < MOST_STEPS:
        epoch, step = divmod(steps, parts)
        users, items, ratings = tensors[order_of(SEED, epoch, parts)[step]]
        optimizer.zero_grad()
        error = torch.nn.functional.mse_loss(model(users, items), ratings)
        total = error.detach().clone()
        arrived = distributed.all_reduce(total, async_op=True)
        error.backward()
        optimizer.step()
        arrived.wait()
        steps += 1
        loss = total.item() / workers
        average = loss if average is None else average + SMOOTHING * (loss - average)
        if average <= options.target:
            break
    wall, cpu = time.monotonic() - began, time.process_time() - startup_cpu
    print(msgspec.json.encode(Timing("PyTorch DDP", steps, wall, cpu, startup_wall, startup_cpu)).decode())
    distributed.barrier()
    distributed.destroy_process_group()


def _mini_batches(
    dataset: Dataset, shape: Ratings, workers: int, rank: int
) -> tuple[int, list[tuple[np.ndarray, ...]]]:
    """Return the parts of an epoch, and what a worker of MLLess trains on in each: centred ratings."""
    files = dataset.manifest.train
    plan = Schedule([file.rows for file in files], BATCH, epochs=1).first(workers)
    numbers = groups_of(plan.owners, rank)
    groups = [dataset.read(files[group]) for group in numbers]
    sizes = np.array([len(group) for group in groups])
    batches = []
    for part in range(plan.parts):
        pieces = [
            group.part(begin, end)
            for group, begin, end in zip(
                groups, *bounds_of(np.array(numbers), sizes, part, plan.parts), strict=True
            )
        ]
        assert all(isinstance(piece, RatingsGroup) for piece in pieces)
        users, items = (
            np.concatenate([getattr(piece, name) for piece in pieces]).astype(np.int64)
            for name in ("users", "items")
        )
        ratings = np.concatenate([piece.ratings for piece in pieces]) - np.float32(shape.mean)
        batches.append((users, items, ratings))
    return plan.parts, batches


def _start(shape: Ratings) -> dict[str, np.ndarray]:
    """Return the start that MLLess' driver makes."""
    spec = Factorization(
        users=shape.users,
        items=shape.items,
        factors=FACTORS,
        l2=0.0,
        centre=shape.mean,
        deviation=1.0,
        low=shape.low,
        high=shape.high,
    )
    return FactorizationModel(spec).initial(np.random.Generator(np.random.PCG64(SEED)))


if __name__ == "__main__":
    main()
