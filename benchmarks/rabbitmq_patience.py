"""A long job over a RabbitMQ broker of little patience, with acknowledgements and without.

    python benchmarks/rabbitmq_patience.py [--seconds 120]

It starts a broker whose acknowledgement time-out and channel tick are 10 s, and trains with two workers for
the time given. Then it trains again with acknowledgements switched off at both ends, which the broker
must not bear.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

import mlless
from mlless.channels import rabbitmq_client
from mlless.data.synthetic import write_ratings
from mlless.errors import MLLessError

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from servers.rabbitmq import Broker

# Python runs a module of this name at every start, also at that of the worker processes.
_EVERY_PROCESS = "sitecustomize.py"
_SWITCH_OFF = """
from mlless.channels import rabbitmq_client
rabbitmq_client.Connection._acknowledge = lambda self: None
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=120.0)
    seconds = parser.parse_args().seconds
    broker = Broker(consumer_timeout=10_000, channel_tick_interval=10_000)
    try:
        with tempfile.TemporaryDirectory(prefix="mlless-benchmark-") as name:
            folder = Path(name)
            write_ratings(folder / "ratings.csv", users=6_000, items=3_700, rows=1_000_000, seed=1)
            mlless.partition(folder / "ratings.csv", folder / "data")
            print(f"with acknowledgements: {train(broker, folder, seconds)}")
            switch_off(folder)
            print(f"without: {train(broker, folder, seconds)}")
    finally:
        broker.stop()


def train(broker: Broker, folder: Path, seconds: float) -> str:
    """Return how a job of that many seconds ended."""
    try:
        run = mlless.train(
            folder / "data",
            out=folder / "run",
            overwrite=True,
            verbose=False,
            workers=2,
            epochs=1_000_000,
            patience=1_000_000,
            max_time=seconds,
            bus=broker.url,
        )
    except MLLessError as error:
        return f"failed: {error}"
    else:
        summary = run.summary
        return f"{summary.steps:,} steps in {summary.wall_seconds:.0f} s, stopped by {summary.stop_reason}"


def switch_off(folder: Path) -> None:
    """Acknowledge nothing from now on, in this process and in those of the workers."""
    (folder / _EVERY_PROCESS).write_text(_SWITCH_OFF)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    rabbitmq_client.Connection._acknowledge = lambda self: None  # type: ignore[method-assign]


if __name__ == "__main__":
    main()
