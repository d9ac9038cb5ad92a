"""The command line as a user types it, on small generated data."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mlless.data.synthetic import write_clicks, write_ratings

COMMAND = [sys.executable, "-m", "mlless"]
DEADLINE = 60.0


def _run(*arguments: object, code: int = 0, **options: Any) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=options.pop("timeout", DEADLINE),
        stdin=options.pop("stdin", subprocess.DEVNULL),
        **options,
    )
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    return done


@pytest.fixture(scope="session")
def mlless() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a command, check its exit code, and return what it printed."""
    return _run


@pytest.fixture(scope="session")
def command() -> list[str]:
    """The beginning of every command."""
    return COMMAND


@dataclass(frozen=True)
class Trained:
    """A raw file, the data set made of it, and a run on it, with what the commands printed."""

    raw: Path
    dataset: Path
    facts: dict[str, Any]
    run: Path
    output: str

    @property
    def summary(self) -> dict[str, Any]:
        return json.loads((self.run / "summary.json").read_text())

    @property
    def history(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.run / "history.jsonl").read_text().splitlines()]


@pytest.fixture(scope="session")
def ratings(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Ratings, partitioned and trained on by two workers."""
    folder = tmp_path_factory.mktemp("ratings")
    raw = folder / "ratings.csv"
    write_ratings(raw, users=300, items=120, rows=12_000, factors=2, seed=3)
    made = _run("partition", raw, folder / "data", "--json")
    trained = _run(
        "train", folder / "data", "--model", "mf", "--workers", 2, "--sync", "isp", "--significance", 0.5,
        "--factors", 4, "--optimizer", "adagrad", "--learning-rate", 0.1, "--l2", 0.05, "--epochs", 4,
        "--seed", 7, "--out", folder / "run",
    )  # fmt: skip
    return Trained(raw, folder / "data", json.loads(made.stdout), folder / "run", trained.stdout)


@pytest.fixture(scope="session")
def clicks(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Clicks, partitioned and trained on by two workers with BSP."""
    folder = tmp_path_factory.mktemp("clicks")
    raw = folder / "clicks.svm"
    write_clicks(raw, rows=6_000, features=400, per_row=8, seed=3)
    made = _run("partition", raw, folder / "data", "--features", 500, "--json")
    trained = _run(
        "train", folder / "data", "--model", "lr", "--workers", 2, "--sync", "bsp", "--epochs", 3,
        "--out", folder / "run",
    )  # fmt: skip
    return Trained(raw, folder / "data", json.loads(made.stdout), folder / "run", trained.stdout)
