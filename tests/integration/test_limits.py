"""Processes of this machine that end as functions of a cloud do: at a time, or for want of memory."""

from __future__ import annotations

import math
import os
import re
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
from integration.jobs import eventually, job

from mlless import session
from mlless.data.dataset import Dataset
from mlless.deployment import Deployment
from mlless.driver import run_job
from mlless.errors import UsageError, WorkerFailed, WorkerLost
from mlless.memory import MB, megabytes, peak_memory
from mlless.run import Run
from mlless.runtimes.opening import open_runtime
from mlless.runtimes.ports import Ended, Runtime
from mlless.runtimes.processes import ProcessRuntime
from mlless.testing.functions import Task

SWELL = "mlless.testing.functions:swell"


@pytest.fixture
def opened() -> Iterator[Callable[[str, Deployment], Runtime]]:
    """Return a function that opens the runtime of a deployment."""
    with ExitStack() as stack:

        def opened(entry: str, deployment: Deployment) -> Runtime:
            runtime = open_runtime(deployment, entry, None, {})
            stack.callback(runtime.stop, 0.0)
            return runtime

        yield opened


def ended_of(runtime: Runtime) -> Ended:
    """Return the next function to end."""
    ended: list[Ended] = []
    eventually(lambda: bool(ended.extend(runtime.ended()) or ended), "a function ends", within=60)
    (one,) = ended
    return one


def task(folder: Path, megabytes: int = 0) -> bytes:
    return msgspec.json.encode(Task(str(folder), str(megabytes), megabytes))


def test_a_function_is_killed_above_its_memory_and_not_below(
    opened: Callable[[str, Deployment], Runtime], tmp_path: Path
) -> None:
    runtime = opened(SWELL, Deployment(memory=200))
    assert (runtime.memory, runtime.time_limit) == (200, None)
    (tmp_path / "go").touch()
    runtime.start({(0, 0): task(tmp_path, 100)})
    assert ended_of(runtime).code == 0
    (tmp_path / "go").unlink()
    runtime.start({(0, 1): task(tmp_path, 250)})
    ended = ended_of(runtime)
    assert (ended.generation, ended.code) == (1, -signal.SIGUSR1)
    assert ended.peak is not None
    found = re.fullmatch(
        r"out of memory: it may have 200 MB and had (\d+) MB; raise --memory", ended.describe()
    )
    assert found
    assert int(found[1]) == math.ceil(ended.peak / MB) > 250


def test_a_function_is_ended_at_its_time(
    opened: Callable[[str, Deployment], Runtime], tmp_path: Path
) -> None:
    runtime = opened("mlless.testing.functions:wait", Deployment(time_limit=1))
    assert (runtime.memory, runtime.time_limit) == (None, 1)
    runtime.start({(3, 2): task(tmp_path)})
    ended = ended_of(runtime)
    assert (ended.worker, ended.generation, ended.code) == (3, 2, -signal.SIGALRM)
    assert ended.describe() == "its time limit of 1 s was over; raise --time-limit"
    assert ended.seconds is not None
    assert ended.seconds >= 1


def test_limits_beyond_all_measure_are_none(
    opened: Callable[[str, Deployment], Runtime], tmp_path: Path
) -> None:
    (tmp_path / "go").touch()
    runtime = opened(SWELL, Deployment(time_limit=10**18, memory=10**18))
    runtime.start({(0, 0): task(tmp_path)})
    assert ended_of(runtime).code == 0


def train(dataset: Dataset, folder: Path, memory: int | None, **wishes: object) -> Run:
    return run_job(job(dataset, workers=2, **wishes), dataset, folder, deployment=Deployment(memory=memory))


def test_a_job_whose_workers_are_out_of_memory_says_so(ratings: Dataset, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="with nothing read yet") as refused:
        train(ratings, tmp_path / "refused", 1)
    bare = re.search(r"expected more than (\d+) MB of memory for a worker, found 1 MB", str(refused.value))
    assert bare
    with pytest.raises(WorkerLost) as lost:
        train(ratings, tmp_path / "small", int(bare[1]) + 1, epochs=100_000)
    told = (
        r"worker [01] died in step \d+: out of memory: it may have (\d+) MB and had (\d+) MB; raise `memory`"
    )
    found = re.fullmatch(told, str(lost.value))
    assert found
    assert int(bare[1]) + 1 == int(found[1]) < int(found[2])


def test_just_enough_memory_is_enough(ratings: Dataset, tmp_path: Path) -> None:
    summary = train(ratings, tmp_path / "free", None, epochs=2).summary
    assert len(summary.workers) == 2
    assert summary.peak_memory is not None
    enough = math.ceil(summary.peak_memory / MB) + 4
    again = train(ratings, tmp_path / "enough", enough, epochs=2).summary
    assert [one.generation for one in again.workers] == [0, 0]
    assert again.peak_memory is not None
    assert again.peak_memory <= (enough + 1) * MB


def test_one_worker_with_a_limit_is_a_process_of_its_own(ratings: Dataset, tmp_path: Path) -> None:
    spec = job(ratings, workers=1, epochs=1)
    limited = run_job(spec, ratings, tmp_path / "limited", deployment=Deployment(memory=2000)).summary
    assert limited.workers[0].pid != os.getpid()
    least = peak_memory()
    here = run_job(spec, ratings, tmp_path / "here").summary
    (alone,) = here.workers
    assert alone.pid == os.getpid()
    assert alone.peak_memory is not None
    assert least - MB < alone.peak_memory < peak_memory() + MB  # the kernel's counts differ by some pages
    assert alone.cpu_seconds is not None
    assert 0 < alone.cpu_seconds <= here.cpu_seconds


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="limits of another process are Linux'")
def test_a_worker_that_gets_no_more_memory_says_so(
    clicks: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python itself finds no room, as under ulimit -v, for a model that the driver has room for."""

    def tight(*arguments: Any) -> Runtime:
        runtime = open_runtime(*arguments)
        assert isinstance(runtime, ProcessRuntime)
        runtime.start({})  # waits until the zygote is ready
        zygote = runtime._host.pid
        addresses = int(Path(f"/proc/{zygote}/statm").read_text().split()[0]) * resource.getpagesize()
        resource.prlimit(zygote, resource.RLIMIT_AS, (addresses + 32 * MB, addresses + 32 * MB))
        limits.append(addresses + 32 * MB)
        return runtime

    limits: list[int] = []
    monkeypatch.setattr(session, "open_runtime", tight)
    spec = job(clicks, workers=2)
    spec = msgspec.structs.replace(spec, model=msgspec.structs.replace(spec.model, features=5_000_000))
    with pytest.raises(WorkerFailed) as failed:
        run_job(spec, clicks, tmp_path / "run")
    told = (
        rf"worker [01] failed in step 0: out of memory: it may have {megabytes(limits[0])} and had \d+ MB; "
        r"it needs more \(`memory`, ulimit -v\): .*MemoryError"
    )
    assert re.match(told, str(failed.value))
    assert "Its traceback" in str(failed.value)
