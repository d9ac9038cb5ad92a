"""Jobs that outlive their functions: processes, and functions of Lithops and of AWS Lambda's emulator."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest
from integration.jobs import job
from servers.redis import Server

from mlless import session
from mlless.artifact import MODEL
from mlless.data.dataset import Dataset
from mlless.deployment import Deployment
from mlless.driver import run_job
from mlless.job import JobSpec
from mlless.records import StepRecord
from mlless.run import Run
from mlless.runtimes.ports import Runtime
from mlless.testing.emulator import EmulatorRuntime

ENDLESS = 1_000_000


class Ending:
    """Ends a job once functions have handed over so many times, and another one at the same step."""

    def __init__(self, handovers: int) -> None:
        self.missing, self.step = handovers, -1

    def hear(self, record: StepRecord) -> bool:
        self.missing -= record.handovers
        assert record.losses == ()
        if self.missing <= 0 and self.step < 0:
            self.step = record.step
        return self.missing <= 0

    def again(self, record: StepRecord) -> bool:
        assert record.handovers == 0
        return record.step == self.step


def limited_and_not(
    spec: JobSpec, dataset: Dataset, folder: Path, limited: Deployment, handovers: int
) -> tuple[Run, Run]:
    ending = Ending(handovers)
    one = run_job(spec, dataset, folder / "limited", deployment=limited, listen=ending.hear)
    assert one.summary.stop_reason == "callback"
    other = run_job(spec, dataset, folder / "unlimited", listen=ending.again)
    assert other.summary.steps == one.summary.steps
    return one, other


def assert_same(one: Run, other: Run) -> None:
    assert (one.folder / MODEL).read_bytes() == (other.folder / MODEL).read_bytes()
    assert one.summary.heldout == other.summary.heldout
    assert [record.loss for record in one.history()] == [record.loss for record in other.history()]


@pytest.mark.parametrize("sync", ["bsp", "isp"])
def test_processes_hand_over_to_the_same_bits(sync: str, ratings: Dataset, tmp_path: Path) -> None:
    spec = job(ratings, workers=2, epochs=ENDLESS, sync=sync)
    one, other = limited_and_not(spec, ratings, tmp_path, Deployment(time_limit=4), handovers=5)
    assert_same(one, other)
    launched = Counter(worker.worker for worker in one.summary.workers)
    assert launched[0] >= 3
    assert launched[1] >= 3
    assert len(other.summary.workers) == 2


def test_one_process_alone_hands_over_to_the_same_bits(clicks: Dataset, tmp_path: Path) -> None:
    spec = job(clicks, workers=1, epochs=ENDLESS)
    assert_same(*limited_and_not(spec, clicks, tmp_path, Deployment(time_limit=4), handovers=2))


@pytest.mark.slow
def test_functions_of_lithops_hand_over_to_the_same_bits(
    ratings: Dataset, tmp_path: Path, redis_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lithops.yaml").write_text("")
    monkeypatch.setenv("LITHOPS_CONFIG_FILE", str(tmp_path / "lithops.yaml"))
    spec = job(ratings, workers=2, epochs=ENDLESS, sync="isp")
    deployment = Deployment(store=redis_server.url, runtime="lithops", time_limit=12)
    assert_same(*limited_and_not(spec, ratings, tmp_path, deployment, handovers=4))


@pytest.mark.slow
def test_functions_of_the_emulator_hand_over_to_the_same_bits(
    ratings: Dataset,
    tmp_path: Path,
    redis_server: Server,
    emulator_binary: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def opened(
        deployment: Deployment, entry: str, cleanup: object, environment: Mapping[str, str]
    ) -> Runtime:
        return EmulatorRuntime(emulator_binary, environment, time_limit=10)

    spec, ending = job(ratings, workers=2, epochs=ENDLESS, sync="isp"), Ending(4)
    with monkeypatch.context() as patched:
        patched.setattr(session, "open_runtime", opened)
        deployment = Deployment(store=redis_server.url)
        one = run_job(spec, ratings, tmp_path / "limited", deployment=deployment, listen=ending.hear)
    assert_same(one, run_job(spec, ratings, tmp_path / "unlimited", listen=ending.again))
