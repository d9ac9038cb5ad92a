"""Whole jobs over real servers: the same model everywhere, nothing left behind, and errors told."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
from integration.jobs import DriverProcess, eventually, job
from servers.rabbitmq import Broker
from servers.redis import Server, running

import mlless
from mlless import pace
from mlless.data.dataset import Dataset
from mlless.deployment import Deployment
from mlless.driver import plan_job, run_job
from mlless.errors import ChannelError, MLLessError
from mlless.locations import Directory
from mlless.records import StepRecord
from mlless.report.history import read_summary
from mlless.wishes import Wishes

OTHERS = b"someone else's"


@pytest.fixture
def redis_with_others(redis_server: Server) -> Iterator[Server]:
    """A Redis in which another program keeps a value; no other key must be left in it at the end."""
    with redis_server.client() as client:
        client.flushdb()
        client.set("mlless", OTHERS)
        yield redis_server
        assert client.keys("*") == [b"mlless"]
        assert client.get("mlless") == OTHERS


@pytest.fixture(scope="session")
def embedded_model(ratings: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], bytes]:
    """What gives the model file of the job that the tests run everywhere, by its pattern of movement."""

    @cache
    def model(pattern: str) -> bytes:
        return _model(ratings, tmp_path_factory.mktemp("embedded") / "run", Deployment(), pattern)

    return model


def _model(ratings: Dataset, out: Path, deployment: Deployment, pattern: str = "broadcast") -> bytes:
    run_job(job(ratings, workers=3, epochs=2, pattern=pattern), ratings, out, deployment=deployment)
    return (out / "model.safetensors").read_bytes()


class TestTheSameModel:
    """One seed, one membership: the same bits as over the embedded channel."""

    @pytest.mark.parametrize("pattern", ["broadcast", "scatter"])
    def test_on_redis(
        self,
        ratings: Dataset,
        run_folder: Path,
        embedded_model: Callable[[str], bytes],
        redis_with_others: Server,
        pattern: str,
    ) -> None:
        on_redis = Deployment(store=redis_with_others.url)
        assert _model(ratings, run_folder, on_redis, pattern) == embedded_model(pattern)

    def test_on_valkey(
        self,
        ratings: Dataset,
        run_folder: Path,
        embedded_model: Callable[[str], bytes],
        valkey_server: Server,
    ) -> None:
        assert _model(ratings, run_folder, Deployment(store=valkey_server.url)) == embedded_model("broadcast")

    def test_with_tls_and_password(
        self,
        ratings: Dataset,
        run_folder: Path,
        embedded_model: Callable[[str], bytes],
        secure_redis_server: Server,
    ) -> None:
        assert _model(ratings, run_folder, Deployment(store=secure_redis_server.url)) == embedded_model(
            "broadcast"
        )

    def test_spread_over_two_servers(
        self,
        ratings: Dataset,
        run_folder: Path,
        embedded_model: Callable[[str], bytes],
        redis_with_others: Server,
        valkey_server: Server,
    ) -> None:
        both = Deployment(store=f"{redis_with_others.url},{valkey_server.unix}")
        assert _model(ratings, run_folder, both, "scatter") == embedded_model("scatter")

    def test_with_messages_over_rabbitmq(
        self,
        ratings: Dataset,
        run_folder: Path,
        embedded_model: Callable[[str], bytes],
        redis_with_others: Server,
        broker: Broker,
    ) -> None:
        both = Deployment(store=redis_with_others.url, bus=broker.url)
        assert _model(ratings, run_folder, both, "allreduce") == embedded_model("allreduce")


@pytest.mark.parametrize(("pattern", "of_a_step"), [("broadcast", 3), ("scatter", 3 * (1 + 3) + 3)])
def test_the_server_holds_no_more_than_a_few_steps(
    ratings: Dataset, run_folder: Path, redis_with_others: Server, pattern: str, of_a_step: int
) -> None:
    """Three snapshots, two streams, a sign of life, and what three workers publish in two steps."""
    keys = []
    with redis_with_others.client() as client:
        run_job(
            job(ratings, workers=3, epochs=10, pattern=pattern),
            ratings,
            run_folder,
            deployment=Deployment(store=redis_with_others.url),
            listen=lambda record: keys.append(client.dbsize()),
        )
    assert len(keys) > 100
    assert max(keys) <= 1 + 3 + 2 + 1 + 3 * of_a_step


@pytest.mark.parametrize("interrupts", [1, 2])
def test_nothing_is_left_after_an_interrupt(
    ratings: Dataset, run_folder: Path, channels: Path, redis_with_others: Server, interrupts: int
) -> None:
    driver = DriverProcess(ratings, run_folder, channels, store=redis_with_others.url)
    try:
        if interrupts == 2:
            os.kill(driver.workers[0], signal.SIGSTOP)  # so that the orderly end cannot come

            def ended() -> bool:
                driver.process.send_signal(signal.SIGINT)
                return driver.process.poll() is not None

            eventually(ended, "the driver stops")
        else:
            driver.process.send_signal(signal.SIGINT)
        output, errors = driver.output()
        assert ("stopped interrupted" in output) == (interrupts == 1)
        assert ("KeyboardInterrupt" in errors) == (interrupts == 2)
        driver.assert_nothing_left()
    finally:
        driver.end()


def test_a_killed_worker_is_replaced_and_nothing_left(
    ratings: Dataset, run_folder: Path, channels: Path, redis_with_others: Server
) -> None:
    driver = DriverProcess(ratings, run_folder, channels, store=redis_with_others.url)
    try:
        os.kill(driver.workers[1], signal.SIGKILL)
        driver.wait_for_step(100)
        driver.process.send_signal(signal.SIGINT)
        output, errors = driver.output()
        assert "stopped interrupted" in output, errors
        driver.assert_nothing_left()
    finally:
        driver.end()


@pytest.mark.parametrize("step", [0, 30])
def test_a_job_whose_server_is_restarted_empty_goes_back_to_its_checkpoint(
    ratings: Dataset, run_folder: Path, own_redis_server: Server, step: int
) -> None:
    restarted = threading.Event()

    def restart(record: object) -> None:
        if getattr(record, "step", None) == step and not restarted.is_set():
            restarted.set()
            own_redis_server.stop()
            own_redis_server.start()

    spec = job(ratings, workers=2, epochs=3)
    with pytest.warns(RuntimeWarning, match="the server has lost the job's messages. It was restarted"):
        run = run_job(
            spec, ratings, run_folder, deployment=Deployment(store=own_redis_server.url), listen=restart
        )
    assert restarted.is_set()
    assert run.summary.stop_reason == "epochs"
    assert [record.step for record in run.history()] == list(range(run.summary.steps))
    with own_redis_server.client() as client:
        assert client.keys("*") == []


def test_a_server_that_is_restarted_with_its_data_changes_nothing(
    ratings: Dataset, run_folder: Path, redis_binary: str, embedded_model: Callable[[str], bytes]
) -> None:
    """Store and bus of a job."""
    restarted = []

    def restart(record: StepRecord) -> None:
        if record.step in (0, 20):
            restarted.append(record.step)
            server.stop()
            server.start()

    with running(redis_binary, "--appendonly", "yes", "--appendfsync", "always") as server:
        spec = job(ratings, workers=3, epochs=2)
        run_job(spec, ratings, run_folder, deployment=Deployment(store=server.url), listen=restart)
        with server.client() as client:
            assert client.keys("*") == []
    assert restarted == [0, 20]
    assert (run_folder / "model.safetensors").read_bytes() == embedded_model("broadcast")


def test_workers_that_wait_for_their_store_are_not_lost(
    ratings: Dataset, run_folder: Path, own_redis_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is away for longer than a worker may be silent for reasons of its own."""
    monkeypatch.setattr(pace, "FLOOR", 0.2)
    away = threading.Timer(2.0, os.kill, (own_redis_server.pid, signal.SIGCONT))

    def stop(record: StepRecord) -> None:
        if record.step == 30:
            os.kill(own_redis_server.pid, signal.SIGSTOP)
            away.start()

    deployment = Deployment(store=own_redis_server.url, bus="embedded", patience_channel=30.0)
    spec = plan_job(Wishes(workers=2, epochs=50), ratings, deployment)
    run = run_job(spec, ratings, run_folder, deployment=deployment, listen=stop)
    assert run.summary.stop_reason == "epochs"
    assert not any(record.losses for record in run.history())
    assert max(record.time - before.time for before, record in pairwise(run.history())) > 1.5


def test_a_server_that_is_full_ends_the_job(
    ratings: Dataset, run_folder: Path, own_redis_server: Server
) -> None:
    with own_redis_server.client() as client:
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", client.info("memory")["used_memory"] + 150_000)
    with pytest.raises(MLLessError, match=r"out of memory.*maxmemory"):
        run_job(
            job(ratings, workers=3, factors=60),
            ratings,
            run_folder,
            deployment=Deployment(store=own_redis_server.url),
        )


def test_a_server_that_fills_up_leaves_the_best_model(
    ratings: Dataset, run_folder: Path, own_redis_server: Server
) -> None:
    def fill(record: StepRecord) -> None:
        if record.step == 60:
            with own_redis_server.client() as client:
                client.config_set("maxmemory-policy", "noeviction")
                client.config_set("maxmemory", 1)

    with pytest.raises(MLLessError, match=r"out of memory.*maxmemory") as caught:
        run_job(
            job(ratings, workers=3, epochs=1000),
            ratings,
            run_folder,
            listen=fill,
            deployment=Deployment(store=own_redis_server.url),
        )
    summary = read_summary(Directory(run_folder))
    assert summary.stop_reason == "failed"
    assert summary.model_step > 0
    assert f"that of step {summary.model_step}, is in {run_folder}" in caught.value.__notes__[-1]
    assert mlless.evaluate(run_folder, ratings.location)["rmse"] == pytest.approx(
        summary.heldout["rmse"], rel=1e-5
    )


@pytest.mark.parametrize(
    ("places", "told"),
    [
        ({"store": "redis://127.0.0.1:1"}, "127.0.0.1:1"),
        ({"bus": "amqp://127.0.0.1:1"}, "127.0.0.1:1"),
        ({"store": "redis://no-such-host.invalid"}, "no-such-host.invalid"),
    ],
)
def test_a_server_that_is_not_there_is_told(
    ratings: Dataset, run_folder: Path, places: dict[str, str], told: str
) -> None:
    with pytest.raises(ChannelError, match=told):
        mlless.train(ratings.location, out=run_folder, **places)  # type: ignore[arg-type]
    assert not list(run_folder.glob("model*"))


def test_a_wrong_password_is_told_and_not_shown(
    ratings: Dataset, run_folder: Path, secure_redis_server: Server
) -> None:
    wrong = secure_redis_server.url.replace("s3cret", "wrong-password")
    with pytest.raises(ChannelError, match="does not let us in") as caught:
        mlless.train(ratings.location, out=run_folder, store=wrong)
    assert "wrong-password" not in str(caught.value)
