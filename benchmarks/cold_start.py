"""How large a function is, and how long it takes to start cold, beside the targets.

    python benchmarks/cold_start.py REDIS_URL EMULATOR [PACKAGE]

EMULATOR is AWS Lambda's ``aws-lambda-rie``; PACKAGE a folder that ``mlless function build --package`` has
made, which is made anew where none is named.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from mlless import session
from mlless.data.partition import partition
from mlless.data.synthetic import write_ratings
from mlless.deployment import Deployment
from mlless.driver import plan_job, run_job
from mlless.function.build import PACKAGE, build, size_of
from mlless.messages import FunctionId
from mlless.records import StepRecord
from mlless.testing.emulator import EmulatorRuntime
from mlless.wishes import Wishes

ROUNDS = 5
SIZE, COLD_START = 120e6, 1.5  # targets: bytes unzipped, seconds to the first step


class Timed(EmulatorRuntime):
    """Notes when it starts functions."""

    def start(self, functions: Mapping[FunctionId, bytes]) -> None:
        """Start them as ever."""
        self.started = time.perf_counter()
        super().start(functions)


def import_seconds(package: Path, what: str) -> float:
    """Return how long a fresh interpreter takes to do ``what`` with the function's packages alone."""
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        environment = {**os.environ, "PYTHONPATH": str(package)}
        subprocess.run([sys.executable, "-S", "-c", what], check=True, env=environment)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def cold_starts(redis: str, emulator: Path, package: Path, folder: Path, workers: int) -> list[float]:
    """Return for each round the seconds from starting the functions to the end of the first step."""
    write_ratings(folder / "ratings.csv", users=300, items=200, rows=12_000, seed=1)
    data = partition(folder / "ratings.csv", folder / f"data{workers}")
    deployment = Deployment(store=redis)
    spec = plan_job(Wishes(model="mf", workers=workers, epochs=1), data)
    seconds = []
    for number in range(ROUNDS):
        runtime = Timed(emulator, {}, package)
        first: list[float] = []

        def listen(record: StepRecord, first: list[float] = first) -> None:
            first.append(time.perf_counter())

        session.open_runtime = lambda *_, runtime=runtime: runtime
        run_job(spec, data, folder / f"run{workers}-{number}", listen=listen, deployment=deployment)
        seconds.append(first[0] - runtime.started)
    return seconds


def main(redis: str, emulator: str, package: str | None = None) -> None:
    """Print the figures."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if package is None:
            build(folder, f"{sys.version_info.major}.{sys.version_info.minor}", package=True)
        place = Path(package) if package else folder / PACKAGE
        print(f"package, unzipped            {size_of(place) / 1e6:6.1f} MB   target {SIZE / 1e6:.0f}")
        bare = import_seconds(place, "pass")
        loaded = import_seconds(place, "import mlless.launch, mlless.channels.redis_store")
        print(f"import of the worker         {loaded - bare:6.2f} s    after {bare:.2f} s of interpreter")
        for workers in (1, 2):
            seconds = cold_starts(redis, Path(emulator), place, folder, workers)
            print(
                f"cold start to first step, {workers}  {statistics.median(seconds):6.2f} s    "
                f"target {COLD_START}; from {min(seconds):.2f} to {max(seconds):.2f} in {ROUNDS} rounds"
            )


if __name__ == "__main__":
    main(*sys.argv[1:])
