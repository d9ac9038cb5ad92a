"""Jobs whose workers are functions: through Lithops, and in the runtime interface emulator of AWS Lambda."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest
from integration.jobs import job
from servers.redis import Server

from mlless import session
from mlless.artifact import MODEL
from mlless.data.dataset import Dataset
from mlless.deployment import Addresses, Deployment
from mlless.driver import Run, run_job
from mlless.errors import WorkerFailed
from mlless.launch import launch_of
from mlless.runtimes.ports import Ended, Runtime
from mlless.testing.emulator import EmulatorRuntime


@pytest.fixture
def emulator(emulator_binary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that were to be processes run in the emulator."""

    def opened(
        deployment: Deployment, entry: str, cleanup: object, environment: Mapping[str, str]
    ) -> Runtime:
        return EmulatorRuntime(emulator_binary, environment)

    monkeypatch.setattr(session, "open_runtime", opened)


def assert_same_model(one: Run, other: Run) -> None:
    assert (one.folder / MODEL).read_bytes() == (other.folder / MODEL).read_bytes()
    assert one.summary.heldout == other.summary.heldout


@pytest.mark.usefixtures("emulator")
def test_workers_in_the_emulator_train_the_same_model(
    ratings: Dataset, tmp_path: Path, redis_server: Server, request: pytest.FixtureRequest
) -> None:
    spec = job(ratings, workers=2, epochs=1)
    functions = run_job(spec, ratings, tmp_path / "functions", deployment=Deployment(store=redis_server.url))
    request.getfixturevalue("monkeypatch").undo()
    assert_same_model(functions, run_job(spec, ratings, tmp_path / "embedded"))


@pytest.mark.usefixtures("emulator")
def test_an_error_in_the_emulator_reaches_the_user(
    ratings: Dataset, run_folder: Path, tmp_path: Path, redis_server: Server
) -> None:
    spec = msgspec.structs.replace(job(ratings, workers=2), dataset=str(tmp_path / "gone"))
    with pytest.raises(WorkerFailed, match="no such folder"):
        run_job(spec, ratings, run_folder, deployment=Deployment(store=redis_server.url))


def test_a_handlers_error_is_that_of_the_function(ratings: Dataset, emulator_binary: Path) -> None:
    runtime = EmulatorRuntime(emulator_binary, {})
    payload = msgspec.json.decode(launch_of(job(ratings, workers=1), Addresses("x", ("/x",), "/x"), 0, 0))
    runtime.start({(0, 0): msgspec.json.encode({**payload, "protocol": 99})})
    (ended,) = runtime.stop(120)
    assert isinstance(ended, Ended)
    assert ended.code == 1
    assert "JobError: this function does not fit the driver" in ended.cause
    assert "launch.py" in ended.cause


def test_lithops_trains_the_same_model(
    ratings: Dataset, tmp_path: Path, redis_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lithops.yaml").write_text("")
    monkeypatch.setenv("LITHOPS_CONFIG_FILE", str(tmp_path / "lithops.yaml"))
    spec = job(ratings, workers=3, epochs=1)
    deployment = Deployment(store=redis_server.url, runtime="lithops")
    functions = run_job(spec, ratings, tmp_path / "functions", deployment=deployment)
    assert_same_model(functions, run_job(spec, ratings, tmp_path / "embedded"))
    with contextlib.closing(redis_server.client()) as client:
        assert not list(client.scan_iter("mlless-*"))
