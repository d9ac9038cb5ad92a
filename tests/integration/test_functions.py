"""Jobs whose workers are functions: through Lithops, and in the runtime interface emulator of AWS Lambda."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
import pytest
from integration.jobs import job
from servers.redis import Server

import mlless
from mlless import session
from mlless.artifact import MODEL
from mlless.channels.opening import open_objects
from mlless.data.dataset import Dataset, open_dataset
from mlless.data.manifest import MANIFEST
from mlless.deployment import Addresses, Deployment
from mlless.driver import run_job
from mlless.errors import WorkerFailed
from mlless.launch import launch_of
from mlless.locations import place_of
from mlless.run import Run
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


@pytest.mark.usefixtures("emulator", "s3")
def test_workers_in_the_emulator_read_from_an_object_store(
    ratings: Dataset, tmp_path: Path, redis_server: Server, bucket: str, request: pytest.FixtureRequest
) -> None:
    there = open_objects(place_of(f"s3://{bucket}/ratings"))
    for path in (MANIFEST, *(file.path for file in ratings.manifest.files)):
        there.put(path, ratings.objects.get(path))
    dataset = open_dataset(f"s3://{bucket}/ratings")
    deployment = Deployment(store=redis_server.url)
    functions = run_job(
        job(dataset, workers=2, epochs=1), dataset, tmp_path / "functions", deployment=deployment
    )
    request.getfixturevalue("monkeypatch").undo()
    assert_same_model(functions, run_job(job(ratings, workers=2, epochs=1), ratings, tmp_path / "embedded"))


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


def test_a_function_in_the_emulator_is_ended_though_it_is_stopped(
    ratings: Dataset, emulator_binary: Path
) -> None:
    runtime = EmulatorRuntime(emulator_binary, {})
    runtime.start({(0, 0): launch_of(job(ratings, workers=1), Addresses("x", ("/x",), "/x"), 0, 0)})
    os.killpg(runtime._functions[0].watch.pid, signal.SIGSTOP)
    runtime.end([(0, 0), (0, 1)])
    (ended,) = runtime.stop(60)
    assert ended.code == 1
    assert "the emulator broke off" in ended.cause


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files; Lithops finds an empty configuration, and so this machine."""
    (tmp_path / "lithops.yaml").write_text("")
    monkeypatch.setenv("LITHOPS_CONFIG_FILE", str(tmp_path / "lithops.yaml"))
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def nothing_is_left(redis_server: Server, temporary: Path) -> Iterator[None]:
    """Fail if a test leaves keys of a job or temporary files."""

    def keys() -> set[bytes]:
        with contextlib.closing(redis_server.client()) as client:
            return set(client.scan_iter("mlless-*"))

    before = keys()
    yield
    assert keys() <= before
    assert not any(temporary.iterdir())


@pytest.mark.usefixtures("nothing_is_left")
def test_lithops_trains_the_same_model(ratings: Dataset, tmp_path: Path, redis_server: Server) -> None:
    spec = job(ratings, workers=3, epochs=1)
    deployment = Deployment(store=redis_server.url, runtime="lithops")
    functions = run_job(spec, ratings, tmp_path / "functions", deployment=deployment)
    assert_same_model(functions, run_job(spec, ratings, tmp_path / "embedded"))


@pytest.mark.usefixtures("nothing_is_left")
def test_an_interrupt_saves_the_model_of_functions(
    ratings: Dataset, run_folder: Path, redis_server: Server
) -> None:
    call = f"{ratings.location!r}, model='mf', workers=2, epochs=100000, out={str(run_folder)!r}"
    code = (
        "import mlless\n"
        f"run = mlless.train({call}, store={redis_server.url!r}, runtime='lithops',\n"
        "    listen=lambda record: print('step', record.step, flush=True))\n"
        "print('stopped', run.summary.stop_reason, flush=True)\n"
    )
    driver = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert driver.stdout
    try:
        assert any(line.startswith("step 5") for line in driver.stdout)
        driver.send_signal(signal.SIGINT)
        assert "stopped interrupted" in driver.communicate(timeout=60)[0]
    finally:
        driver.kill()
        driver.communicate()
    assert mlless.load(run_folder).kind == "mf"


@pytest.mark.usefixtures("nothing_is_left")
def test_a_failure_in_lithops_reaches_the_user(
    ratings: Dataset, run_folder: Path, tmp_path: Path, redis_server: Server
) -> None:
    spec = msgspec.structs.replace(job(ratings, workers=2), dataset=str(tmp_path / "gone"))
    deployment = Deployment(store=redis_server.url, runtime="lithops")
    with pytest.raises(WorkerFailed, match="no such folder"):
        run_job(spec, ratings, run_folder, deployment=deployment)
