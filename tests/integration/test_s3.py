"""Data sets and runs in a real object store: the same bits as in folders, and every failure told."""

from __future__ import annotations

import http.server
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from integration.jobs import PATIENCE, job
from servers.s3 import S3Server

import mlless
from mlless.billing.budget import WRITES
from mlless.channels.opening import open_objects
from mlless.channels.ports import Bytes
from mlless.data import destination as destinations
from mlless.data.dataset import Dataset, open_dataset
from mlless.data.manifest import MANIFEST
from mlless.data.partition import partition
from mlless.data.synthetic import write_ratings
from mlless.driver import run_job
from mlless.errors import ChannelError, DatasetError, InputError, MissingObject, UsageError, WorkerFailed
from mlless.locations import place_of
from mlless.records import StepRecord
from mlless.report.history import CHECKPOINT, read_history, read_summary
from mlless.simulation.conditions import Durations
from mlless.simulation.jobs import simulate

SECONDS = 40.0  # within which every error must be told, also on a busy machine
OPTIONS = {"model": "mf", "workers": 2, "epochs": 2, "factors": 4, "seed": 3}


@pytest.fixture(scope="session")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("raw") / "ratings.csv"
    write_ratings(path, users=80, items=60, rows=3000, seed=5)
    return path


def test_the_same_data_set_and_the_same_model_as_in_a_folder(
    raw: Path, bucket: str, s3: S3Server, tmp_path: Path
) -> None:
    there, here = f"s3://{bucket}/data/ratings", tmp_path / "data"
    made = mlless.partition(raw, there)
    mlless.partition(raw, here)
    files = {
        path.relative_to(here).as_posix(): path.read_bytes() for path in here.rglob("*") if path.is_file()
    }
    assert s3.objects(bucket) == {f"data/ratings/{name}": data for name, data in files.items()}
    assert made.location == there

    remote = mlless.train(there, out=f"s3://{bucket}/runs/first", **OPTIONS)
    local = mlless.train(here, out=tmp_path / "run", **OPTIONS)
    run = {name: data for name, data in s3.objects(bucket).items() if name.startswith("runs/")}
    assert set(run) == {
        f"runs/first/{name}" for name in ("model.safetensors", "history.jsonl", "summary.json")
    }
    assert run["runs/first/model.safetensors"] == (local.folder / "model.safetensors").read_bytes()
    assert remote.summary.bytes_fetched == local.summary.bytes_fetched

    assert len(remote.history()) == len(local.history()) == remote.summary.steps
    assert mlless.evaluate(remote.location, there) == mlless.evaluate(local.folder, here)
    users, items = np.array([1, 2, 3]), np.array([4, 5, 6])
    predicted = local.model().predict_ratings(users, items)
    assert mlless.load(remote.location).predict_ratings(users, items).tolist() == predicted.tolist()
    excluded = [
        run.model().seen_in(open_dataset(data)).items.tolist()
        for run, data in ((remote, there), (local, here))
    ]
    assert excluded[0] == excluded[1]
    with pytest.raises(UsageError, match="no folder on this machine"):
        _ = remote.folder


def test_the_commands_take_urls(raw: Path, bucket: str, s3: S3Server, tmp_path: Path) -> None:
    """Those that the examples of docs/howto/object-store.md leave out."""
    data, run, test = (f"s3://{bucket}/{name}" for name in ("data", "run", "test"))
    partition(raw, data)
    mlless.train(data, out=run, workers=2, epochs=1)
    commands = [
        ["partition", raw, test, "--like", data],
        ["predict", run, test, "--out", tmp_path / "predictions.csv"],
    ]
    for command in commands:
        done = subprocess.run(
            [sys.executable, "-m", "mlless", *map(str, command)], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)
    assert len((tmp_path / "predictions.csv").read_text().splitlines()) == 3001


def test_a_run_is_replaced_only_if_asked_to_and_only_by_a_model(
    ratings: Dataset, bucket: str, s3: S3Server
) -> None:
    out = f"s3://{bucket}/runs/one"
    run_job(job(ratings, workers=2, epochs=1), ratings, out)
    before = s3.objects(bucket)
    with pytest.raises(UsageError, match="`overwrite`"):
        run_job(job(ratings, workers=2, epochs=1), ratings, out)
    gone = msgspec.structs.replace(job(ratings, workers=2), dataset=f"s3://{bucket}/gone")
    with pytest.raises(WorkerFailed, match="not a data set"):
        run_job(gone, ratings, out, overwrite=True)
    assert s3.objects(bucket) == before
    run_job(job(ratings, workers=2, epochs=1, seed=1), ratings, out, overwrite=True)
    after = s3.objects(bucket)
    assert set(after) == set(before)
    assert all(after[name] != before[name] for name in before)
    with pytest.raises(UsageError, match="not a run's folder"):
        run_job(job(ratings, workers=2, epochs=1), ratings, f"s3://{bucket}/runs", overwrite=True)


def test_a_run_that_fails_says_so_and_makes_way(ratings: Dataset, bucket: str, s3: S3Server) -> None:
    gone = msgspec.structs.replace(job(ratings, workers=2), dataset=f"s3://{bucket}/gone")
    with pytest.raises(WorkerFailed, match="not a data set"):
        run_job(gone, ratings, f"s3://{bucket}/run")
    assert set(s3.objects(bucket)) == {"run/history.jsonl", "run/summary.json"}
    summary = read_summary(place_of(f"s3://{bucket}/run"))
    assert (summary.stop_reason, summary.model_step) == ("failed", 0)
    assert "not a data set" in str(summary.error)
    run_job(job(ratings, workers=2, epochs=1), ratings, f"s3://{bucket}/run")


def test_what_is_put_into_the_bucket_meanwhile_is_on_the_bill(ratings: Dataset, bucket: str) -> None:
    run = mlless.train(
        ratings,
        out=f"s3://{bucket}/run",
        workers=2,
        epochs=2,
        checkpoint_every=0.01,
        tariff="aws-lambda-x86",
        verbose=False,
    )
    assert run.bill is not None
    (billed,) = (item.quantity for item in run.bill.items if item.what == "object store, writes")
    kept = run.summary.checkpoints
    assert kept.count > 0
    assert 0 < kept.writes <= 2 * kept.count
    assert billed >= kept.writes + WRITES
    model = sum(4 * 21 * len(ids) for ids in (run.model().artifact.ids.users, run.model().artifact.ids.items))
    assert kept.bytes > model


@pytest.mark.parametrize("workers", [1, 2])
def test_the_best_model_is_in_the_bucket_while_a_job_runs(
    ratings: Dataset, bucket: str, s3: S3Server, workers: int
) -> None:
    out = f"s3://{bucket}/run"

    def listen(record: StepRecord) -> None:
        with suppress(FileNotFoundError, ValueError):  # while the server replaces the file
            if json.loads((s3.folder / bucket / "run/summary.json").read_bytes())["model_step"]:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        run_job(job(ratings, workers=workers, epochs=10**6), ratings, out, listen=listen)
    assert set(s3.objects(bucket)) - {f"run/{CHECKPOINT}"} == {
        f"run/{name}" for name in ("model.safetensors", "history.jsonl", "summary.json")
    }
    summary = read_summary(place_of(out))
    assert summary.stop_reason == "failed"
    assert caught.value.__notes__[-1].endswith(f"that of step {summary.model_step}, is in {out}")
    assert mlless.evaluate(out, ratings.location)["rmse"] == pytest.approx(summary.heldout["rmse"], rel=1e-5)
    assert [record.step for record in read_history(place_of(out))] == list(range(summary.steps))


def test_a_model_that_cannot_be_uploaded_is_kept_here(
    ratings: Dataset, bucket: str, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def expire(record: StepRecord) -> None:
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "expired")

    with pytest.raises(ChannelError, match="credentials are not accepted") as caught:
        run_job(job(ratings, workers=2, epochs=1), ratings, f"s3://{bucket}/run", listen=expire)
    folder = re.search(r"it is kept in (\S+):", str(caught.value), re.IGNORECASE)
    assert folder
    assert mlless.load(folder[1]).kind == "mf"
    shutil.rmtree(folder[1])


# Partitioning: the old data set or the new one, never neither


def test_a_data_set_is_replaced_when_asked_to(raw: Path, bucket: str, s3: S3Server) -> None:
    dest = f"s3://{bucket}/data"
    first = partition(raw, dest)
    with pytest.raises(UsageError, match=r"already a data set.*`overwrite`"):
        partition(raw, dest)
    second = partition(raw, dest, seed=1, overwrite=True)
    assert first.manifest.train != second.manifest.train
    names = {f"data/{file.path}" for file in second.manifest.files} | {"data/manifest.json"}
    assert set(s3.objects(bucket)) == names
    for file in second.manifest.train:
        second.read(file)


def test_a_data_set_of_another_version_is_replaced(
    raw: Path, bucket: str, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    dest = f"s3://{bucket}/data"
    open_objects(place_of(dest)).put(MANIFEST, b'{"format": 0}')
    before = s3.objects(bucket)
    no_more = ChannelError("no more")
    with monkeypatch.context() as patch:
        patch.setattr(destinations, "open_objects", lambda location: Failing(str(location), 1, no_more))
        with pytest.raises(ChannelError, match="no more"):
            partition(raw, dest, overwrite=True)
    assert before.items() <= s3.objects(bucket).items()
    assert partition(raw, dest, overwrite=True).manifest.train


def test_what_is_no_data_set_is_not_replaced(raw: Path, bucket: str, s3: S3Server) -> None:
    open_objects(place_of(f"s3://{bucket}/home")).put("thesis.tex", b"")
    partition(raw, f"s3://{bucket}/data")
    before = s3.objects(bucket)
    for dest, found in ((f"s3://{bucket}/home", "thesis.tex"), (f"s3://{bucket}", "data, home")):
        with pytest.raises(UsageError, match=f"not a data set.*{found}"):
            partition(raw, dest, overwrite=True)
    with pytest.raises(UsageError, match="`like` would be replaced"):
        partition(raw, f"s3://{bucket}/data", like=f"s3://{bucket}/data/", overwrite=True)
    with pytest.raises(InputError, match=r"home/thesis\.tex: an empty file"):
        partition(f"s3://{bucket}/home/thesis.tex", f"s3://{bucket}/new")
    assert s3.objects(bucket) == before


class Failing:
    """An object store that fails at the put of a number, before or after it is done."""

    distant = True

    def __init__(self, location: str, at: int, error: BaseException, *, after: bool = False) -> None:
        self._objects, self._at, self._error, self._after = open_objects(place_of(location)), at, error, after
        self._puts, self._lock = 0, threading.Lock()

    def put(self, path: str, data: Bytes) -> None:
        with self._lock:
            self._puts += 1
            fails = self._puts == self._at
        if fails and not self._after:
            raise self._error
        self._objects.put(path, data)
        if fails:
            raise self._error

    def __getattr__(self, name: str) -> object:
        return getattr(self._objects, name)


@pytest.mark.parametrize("error", [ChannelError("no more"), KeyboardInterrupt()])
@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("at", [1, 9, 17])
def test_a_partition_that_dies_half_way_leaves_all_as_it_was(
    raw: Path,
    bucket: str,
    s3: S3Server,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    there: bool,
    at: int,
) -> None:
    dest = f"s3://{bucket}/data"
    if there:
        partition(raw, dest)
    before = s3.objects(bucket)
    monkeypatch.setattr(destinations, "open_objects", lambda location: Failing(str(location), at, error))
    for seed in (0, 1):  # the very files that are there, and others
        with pytest.raises(type(error)):
            partition(raw, dest, seed=seed, overwrite=True)
        assert s3.objects(bucket) == before


def test_a_manifest_whose_answer_is_lost_keeps_its_files(
    raw: Path, bucket: str, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    dest = f"s3://{bucket}/data"
    files = len(partition(raw, dest).manifest.files)
    lost = ChannelError("the answer is lost")
    monkeypatch.setattr(
        destinations, "open_objects", lambda location: Failing(str(location), files + 1, lost, after=True)
    )
    with pytest.raises(ChannelError, match="the answer is lost"):
        partition(raw, dest, seed=1, overwrite=True)
    there = open_dataset(dest)
    assert there.manifest.made.seed == 1
    for file in there.manifest.files:
        there.objects.get(file.path)


# Workers


class Counting:
    """A distant store of a folder's files that writes down what is asked for."""

    distant = True

    def __init__(self, dataset: Dataset) -> None:
        self._objects, self.asked = dataset.objects, []

    def get(self, path: str) -> bytes:
        self.asked.append(path)
        return self._objects.get(path)


def test_a_distant_store_changes_nothing_on_the_virtual_clock(ratings: Dataset) -> None:
    spec, durations = job(ratings, workers=3, epochs=3), Durations(work={"compute": 1e-5, "fetch": 1e-8})
    store = Counting(ratings)
    near = simulate(spec, ratings, durations)
    far = simulate(spec, replace(ratings, objects=store), durations)
    assert far.seconds == near.seconds
    assert {name: table.tobytes() for name, table in far.tables.items()} == {
        name: table.tobytes() for name, table in near.tables.items()
    }
    files = [*ratings.manifest.train, *ratings.manifest.validation]
    assert sorted(store.asked) == sorted(file.path for file in files if file.rows)  # each once


# Errors


@contextmanager
def told_in_seconds(error: type[Exception], message: str) -> Iterator[None]:
    start = time.monotonic()
    with pytest.raises(error, match=message) as caught:
        yield
    assert time.monotonic() - start < SECONDS
    assert "the-secret" not in str(caught.value)


def ways(location: str) -> list[Callable[[], object]]:
    """Return ways to use a place in an object store."""
    return [
        lambda: open_objects(place_of(location)).get("some/key"),
        lambda: open_objects(place_of(location)).put("some/key", b"x"),
        lambda: open_objects(place_of(location)).names(),
        lambda: open_objects(place_of(location)).delete(["some/key"]),
        lambda: open_dataset(location),
    ]


def test_a_missing_bucket_is_named(s3: S3Server, raw: Path) -> None:
    for way in (*ways("s3://nowhere/p"), lambda: partition(raw, "s3://nowhere/p")):
        with told_in_seconds(ChannelError, "s3://nowhere: there is no such bucket.*NoSuchBucket"):
            way()


def test_a_missing_key_is_named(bucket: str) -> None:
    with told_in_seconds(MissingObject, f"s3://{bucket}/p/some/key: no such object"):
        open_objects(place_of(f"s3://{bucket}/p")).get("some/key")
    with told_in_seconds(DatasetError, f"s3://{bucket}/p: not a data set.*mlless partition"):
        open_dataset(f"s3://{bucket}/p")
    with told_in_seconds(DatasetError, f"s3://{bucket}/p: no model here"):
        mlless.load(f"s3://{bucket}/p")


def test_a_data_set_that_is_partly_deleted_is_no_data_set(raw: Path, bucket: str, s3: S3Server) -> None:
    dataset = mlless.partition(raw, f"s3://{bucket}/p")
    (first, *_) = dataset.manifest.train
    dataset.objects.delete([first.path])
    with told_in_seconds(DatasetError, f"s3://{bucket}/p/{first.path}: a file of the data set is missing"):
        dataset.read(first)


@pytest.mark.parametrize("variable", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_wrong_credentials_are_told(bucket: str, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "wrong")
    for way in ways(f"s3://{bucket}/p"):
        with told_in_seconds(ChannelError, f"{bucket}/p.*credentials are not accepted.*AWS_ACCESS_KEY_ID"):
            way()


def test_an_end_point_that_is_not_there_is_named(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:  # bound, but no one listens
        taken.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        with told_in_seconds(ChannelError, f"s3://{bucket}/p/some/key: cannot reach {endpoint} to read"):
            open_objects(place_of(f"s3://{bucket}/p")).get("some/key")


def test_no_credentials_are_told_without_waiting_for_an_instance(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and never answers
        monkeypatch.setenv("AWS_METADATA_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with told_in_seconds(ChannelError, f"s3://{bucket}/p: no credentials.*timed out.*aws configure"):
            open_dataset(f"s3://{bucket}/p")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with told_in_seconds(ChannelError, "no credentials.*AWS_EC2_METADATA_DISABLED"):
        open_dataset(f"s3://{bucket}/p")


class _Answers(http.server.BaseHTTPRequestHandler):
    """Answers with the next of the server's statuses, and with an object when there is none left."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(b"an object")

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(b"")

    def do_POST(self) -> None:
        self.do_PUT()

    def _answer(self, body: bytes) -> None:
        statuses = self.server.statuses
        self.server.requests += 1
        status = statuses.pop(0) if statuses else 200
        body = body if status == 200 else b"<Error><Code>Told</Code></Error>"
        self.send_response(status)
        for name, value in {
            "Content-Length": len(body),
            "ETag": '"x"',
            "Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT",
        }.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def answers(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[http.server.ThreadingHTTPServer]:
    """A server that fails as its ``statuses`` say, one a request."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
    server.daemon_threads = True
    server.statuses, server.requests = [], 0
    serving = threading.Thread(target=server.serve_forever, args=(0.05,))
    serving.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    yield server
    server.shutdown()
    serving.join(PATIENCE)
    server.server_close()


def test_what_fails_for_a_moment_is_tried_again(answers) -> None:
    store = open_objects(place_of("s3://b/p"))
    for statuses in ([503], [500, 503, 429]):
        answers.statuses, answers.requests = list(statuses), 0
        assert store.get("k") == b"an object"
        assert answers.requests == len(statuses) + 1
        answers.statuses, answers.requests = list(statuses), 0
        store.put("k", b"x")
        assert answers.requests == len(statuses) + 1


def test_what_goes_on_failing_is_told(answers) -> None:
    answers.statuses = [503] * 100
    with told_in_seconds(
        ChannelError, "s3://b/p/k: cannot read: found Told.*try again later|Try again later"
    ):
        open_objects(place_of("s3://b/p")).get("k")


@pytest.mark.parametrize(
    ("doing", "use"),
    [
        ("read", lambda store: store.get("k")),
        ("write", lambda store: store.put("k", b"x")),
        ("list", lambda store: store.names()),
        ("delete", lambda store: store.delete(["k"])),
    ],
)
def test_a_missing_permission_is_told_at_once(answers, doing: str, use: Callable[[object], object]) -> None:
    answers.statuses = [403]
    with told_in_seconds(ChannelError, f"s3://b/p.*: no permission to {doing}.*Allow it"):
        use(open_objects(place_of("s3://b/p")))
    assert answers.requests == 1


def test_a_bucket_elsewhere_is_told(answers) -> None:
    answers.statuses = [301]
    with told_in_seconds(ChannelError, "s3://b: the bucket is in another region.*AWS_REGION"):
        open_objects(place_of("s3://b/p")).get("k")


def test_a_worker_tells_what_became_of_the_store(
    raw: Path, bucket: str, s3: S3Server, tmp_path: Path
) -> None:
    dataset = partition(raw, f"s3://{bucket}/data")
    for file in dataset.manifest.train[3:]:
        dataset.objects.delete([file.path])
    with told_in_seconds(WorkerFailed, f"s3://{bucket}/data/train/.*: a file of the data set is missing"):
        run_job(job(dataset, workers=2), dataset, tmp_path / "run")


def test_no_one_loads_the_client_without_a_url(ratings: Dataset) -> None:
    code = (
        "import sys, mlless, mlless.launch\n"
        "mlless.open_dataset(sys.argv[1]).read(mlless.open_dataset(sys.argv[1]).manifest.train[0])\n"
        "assert 'obstore' not in sys.modules and 'http.client' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code, ratings.location], check=True, env=os.environ, timeout=60)
