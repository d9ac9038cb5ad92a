"""Jobs for the integration tests, and a driver in a process of its own to be killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

import mlless
from mlless.data.dataset import Dataset
from mlless.detached.status import Status
from mlless.job import JobSpec
from mlless.recipes import job_of
from mlless.report.underway import Detached
from mlless.wishes import Wishes

COMMAND = [sys.executable, "-m", "mlless"]
PATIENCE = 20.0  # seconds after which a test gives up on an event


def job(dataset: Dataset, **wishes: object) -> JobSpec:
    """Return a job on ``dataset`` with the given wishes, the model being what the data allows.

    An epoch of one worker has 45 mini-batches, each of which is a step, unless they say otherwise.
    """
    model = "mf" if dataset.manifest.kind == "ratings" else "lr"
    rows = sum(file.rows for file in dataset.manifest.train)
    wishes = {"model": model, "batch_size": max(rows // 45, 1), "local_steps": 1, **wishes}
    return job_of(msgspec.convert(wishes, Wishes), dataset.manifest, dataset.location)


def eventually(condition: Callable[[], bool], what: str, within: float = PATIENCE) -> None:
    """Return once ``condition`` holds; AssertionError after ``within`` seconds."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {within} s"
        time.sleep(0.01)


def children(pid: int) -> list[int]:
    """Return the child processes of ``pid``."""
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False)
    return [int(line) for line in found.stdout.split()]


def alive(pid: int) -> bool:
    """Return whether a process is there and not a zombie."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return bool(state.stdout.strip()) and not state.stdout.strip().startswith("Z")


class DriverProcess:
    """A training of many epochs in a process of its own, its channels in ``channels``."""

    def __init__(
        self, dataset: Dataset, run: Path | str, channels: Path, workers: int = 3, **places: str | float
    ) -> None:
        channels.mkdir(exist_ok=True)
        self.channels = channels
        call = f"{dataset.location!r}, model='mf', workers={workers}, epochs=100000, out={str(run)!r}"
        call += f", verbose=False, **{places!r}"
        code = (
            "import mlless\n"
            f"run = mlless.train({call}, listen=lambda record: print('step', record.step, flush=True))\n"
            "print('stopped', run.summary.stop_reason, flush=True)\n"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "MLLESS_CHANNEL_DIR": str(channels)},
        )
        self.wait_for_step(20)
        (self.zygote,) = children(self.process.pid)
        self.workers = sorted(children(self.zygote))
        assert len(self.workers) == workers

    def wait_for_step(self, step: int) -> None:
        """Return once the driver has closed ``step``."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("step") and int(line.split()[1]) >= step:
                return
        raise AssertionError(f"the driver ended early: {self.process.communicate()[1]}")

    def output(self) -> tuple[str, str]:
        """Return what the driver wrote, once it has ended."""
        return self.process.communicate(timeout=PATIENCE)

    def assert_nothing_left(self, within: float = 5.0) -> None:
        """Fail unless all processes and all files of the channels are gone."""
        everyone = [self.zygote, *self.workers]
        eventually(lambda: not any(map(alive, everyone)), "processes end", within)
        eventually(lambda: not any(self.channels.iterdir()), "channel files go", within)

    def end(self) -> None:
        """Kill whatever is left."""
        self.process.kill()
        self.process.communicate()


class DetachedJob:
    """A detached job of the command line, whose processes are known."""

    def __init__(
        self, dataset: Dataset, run: Path | str, channels: Path, *options: str, epochs: int = 10**6
    ) -> None:
        channels.mkdir(exist_ok=True)
        self.run, self.channels = run, channels
        self.environment = {**os.environ, "MLLESS_CHANNEL_DIR": str(channels)}
        command = [*COMMAND, "train", dataset.location, "--out", str(run), "--epochs", str(epochs)]
        self.done = subprocess.run(
            [*command, "--detach", *options],
            capture_output=True,
            text=True,
            timeout=60,
            env=self.environment,
            check=False,
        )
        self.everyone: list[int] = []

    def look(self) -> Detached:
        """Take in which processes there are; return what the job says of its guardian."""
        found = self.status.job
        assert found is not None
        assert found.detached is not None
        guardian = found.detached.guardian
        (self.supervisor,) = children(guardian)
        assert found.pid == self.supervisor
        self.everyone, below = [guardian, self.supervisor], children(self.supervisor)
        while below:
            self.everyone += below
            below = [pid for parent in below for pid in children(parent)]
        return found.detached

    @property
    def status(self) -> Status:
        return mlless.status(self.run)

    def command(
        self, name: str, *options: str, command: list[str] = COMMAND
    ) -> subprocess.CompletedProcess[str]:
        """Run another command on the run."""
        return subprocess.run(
            [*command, name, str(self.run), *options],
            capture_output=True,
            text=True,
            timeout=60,
            env=self.environment,
            check=False,
        )

    def watch(self, command: list[str] = COMMAND) -> subprocess.Popen[str]:
        """Attach to the run, in a process of its own whose output is to be read."""
        return subprocess.Popen(
            [*command, "attach", str(self.run)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**self.environment, "PYTHONUNBUFFERED": "1"},
            # As at a terminal, also where the tests themselves run in the background and ignore a Ctrl-C.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def assert_nothing_left(self) -> None:
        eventually(lambda: not any(map(alive, self.everyone)), "processes end")
        eventually(lambda: not any(self.channels.iterdir()), "channel files go")

    def end(self) -> None:
        for pid in self.everyone:
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
