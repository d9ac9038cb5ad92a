"""Trackers, fed by real trainings and read back by the tools' own clients."""

from __future__ import annotations

import math
import struct
import threading

import pytest
from integration.jobs import eventually
from servers.need import missing

import mlless
from mlless.errors import ChannelError, UsageError
from mlless.tracking import MLflow, TensorBoard, WandB
from mlless.tracking.tracker import Tracker

# What clients say of themselves, and of Python to come.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


DEADLINE = 30.0


def needed(module: str):
    try:
        return __import__(module)
    except ModuleNotFoundError:
        missing(module, f"pip install 'mlless[{module}]'")


def trained(ratings, out, **options):
    return mlless.train(ratings, out=out, epochs=2, verbose=False, **options)


def evaluations(run):
    """Return step and error of each evaluation of a run, as single precision has it."""
    heard = [(record.step, record.heldout["rmse"]) for record in run.history() if record.heldout]
    return [(step, pytest.approx(value, rel=1e-6)) for step, value in heard]


@pytest.fixture
def mlflow_uri(tmp_path) -> str:
    """MLflow's store in a file."""
    needed("mlflow")
    needed("sqlalchemy")
    return f"sqlite:///{tmp_path}/mlflow.db"


def test_mlflow_has_the_job_its_steps_and_its_end(ratings, run_folder, mlflow_uri):
    run = trained(ratings, run_folder, callbacks=[MLflow(mlflow_uri, every=0.0)])
    from mlflow import MlflowClient

    client = MlflowClient(mlflow_uri)
    experiment = client.get_experiment_by_name("mlless")
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.run_name == run_folder.name
    assert found.info.status == "FINISHED"
    assert found.data.tags["mlless.stop_reason"] == "epochs"
    assert found.data.params["model.factors"] == "20"
    assert found.data.params["fingerprint"] == run.summary.job.fingerprint
    errors = client.get_metric_history(found.info.run_id, "heldout_rmse")
    assert [(one.step, one.value) for one in errors] == evaluations(run)
    losses = client.get_metric_history(found.info.run_id, "train_loss")
    assert [(one.step, one.value) for one in losses] == [
        (record.step, record.train_loss) for record in run.history()
    ]
    assert found.data.metrics["model_rmse"] == run.summary.heldout["rmse"]
    assert found.data.metrics["bytes_fetched"] == run.summary.bytes_fetched


def test_mlflow_goes_on_with_the_run_that_is_resumed(ratings, run_folder, mlflow_uri):
    class Lost(Exception):
        pass

    def lose(record):
        if record.epoch > 3:
            raise Lost

    options = {"verbose": False, "checkpoint_every": 1e-6}
    with pytest.raises(Lost):
        mlless.train(ratings, out=run_folder, epochs=8, log_to=f"mlflow:{mlflow_uri}", listen=lose, **options)
    from mlflow import MlflowClient

    client = MlflowClient(mlflow_uri)
    experiment = client.get_experiment_by_name("mlless").experiment_id
    (failed,) = client.search_runs([experiment])
    assert failed.info.status == "FAILED"
    assert failed.data.tags["mlless.error"] == "Lost"
    run = mlless.resume(run_folder, log_to=f"mlflow:{mlflow_uri}", verbose=False)
    assert run.summary.resumed[0] > 0
    (found,) = client.search_runs([experiment])
    assert found.info.run_id == failed.info.run_id
    assert found.info.status == "FINISHED"
    steps = {one.step for one in client.get_metric_history(found.info.run_id, "heldout_rmse")}
    assert steps == {record.step for record in run.history() if record.heldout}


def test_an_estimator_is_followed_as_well(mlflow_uri):
    pairs = [(user, item) for user in range(60) for item in range(40)]
    tracker = MLflow(mlflow_uri, experiment="fits")
    model = mlless.MatrixFactorization(max_iter=3, random_state=0, refit=False, callbacks=[tracker])
    for seed in (0, 1):  # a tracker serves one fit after the other
        model.set_params(random_state=seed).fit(pairs, [1.0 + (user * item) % 5 for user, item in pairs])
    from mlflow import MlflowClient

    client = MlflowClient(mlflow_uri)
    found = client.search_runs([client.get_experiment_by_name("fits").experiment_id])
    assert {one.data.params["seed"] for one in found} == {"0", "1"}
    assert {one.info.status for one in found} == {"FINISHED"}


@pytest.fixture
def tensorboard():
    """TensorBoard's own reader."""
    needed("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def read(folder):
        events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
        events.Reload()
        return events

    return read


def test_tensorboard_has_the_steps(ratings, run_folder, tmp_path, tensorboard):
    boards = tmp_path / "boards"
    run = trained(ratings, run_folder, workers=2, callbacks=[TensorBoard(boards, every=0.0)])
    events = tensorboard(boards / run_folder.name)
    assert [(one.step, one.value) for one in events.Scalars("heldout_rmse")] == evaluations(run)
    published = events.Scalars("bytes_published")
    assert published[-1].value == pytest.approx(run.summary.bytes_published)
    assert [one.step for one in published] == [record.step for record in run.history()]
    (job,) = events.Tensors("job")
    assert run.summary.job.fingerprint in job.tensor_proto.string_val[0].decode()


def test_tensorboard_shows_the_run_that_has_taken_the_place_of_another(
    ratings, run_folder, tmp_path, tensorboard
):
    for overwrite in (False, True):
        run = trained(
            ratings, run_folder, overwrite=overwrite, seed=int(overwrite), log_to=f"tensorboard:{tmp_path}/b"
        )
    events = tensorboard(tmp_path / "b" / run_folder.name)
    assert [(one.step, one.value) for one in events.Scalars("heldout_rmse")] == evaluations(run)


def records(data: bytes):
    """Yield the records of a file of Weights & Biases: blocks of 32 kB, a header of 7 bytes each."""
    at, whole = 7, b""
    while at < len(data):
        if (left := 32_768 - at % 32_768) < 7:
            at += left
            continue
        length, kind = struct.unpack_from("<HB", data, at + 4)
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            yield whole
            whole = b""


def test_weights_and_biases_has_the_steps(ratings, run_folder, tmp_path, monkeypatch):
    needed("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    run = trained(ratings, run_folder, callbacks=[WandB("ours", every=0.0)])
    from wandb.proto.wandb_internal_pb2 import Record

    (file,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")

    def stored() -> list[Record]:
        found = [Record() for _ in records(file.read_bytes())]
        for record, data in zip(found, records(file.read_bytes()), strict=False):
            record.ParseFromString(data)
        return found

    # Its process writes the last block shortly after the client is told that all is done.
    eventually(lambda: any(record.HasField("exit") for record in stored()), "the end is stored", DEADLINE)
    steps = []
    for record in stored():
        if record.HasField("history"):
            row = {(one.key or ".".join(one.nested_key)): one.value_json for one in record.history.item}
            steps.append((int(row["step"]), float(row["train_loss"])))
    assert {record.run.project for record in stored() if record.HasField("run")} == {"ours"}
    assert steps == [(record.step, record.train_loss) for record in run.history()]


class Board(Tracker):
    """A tool that keeps what it is told, and may fail."""

    tool, packages = "Board", ("board",)

    def __init__(self, *, every: float = 0.0, fails: str = "") -> None:
        super().__init__(every=every)
        self.fails, self.points, self.endings = fails, [], []
        self.thread = None

    def open(self, beginning):
        if self.fails == "open":
            raise OSError("no board at http://me:secret@host")
        if self.fails == "settings":
            raise ValueError(
                "1 validation error for Settings\nname\n  Value error, too long: 'x' "
                "[type=value_error, input_value='x', input_type=str]\n    For further information visit it"
            )
        if self.fails == "import":
            raise ModuleNotFoundError("no board")
        self.thread = threading.current_thread()
        return self

    def write(self, points):
        if self.fails == "write":
            raise OSError("the board is full")
        self.points += points

    def close(self, ending):
        self.endings.append(ending)


def test_a_tool_is_fed_in_a_thread_of_its_own(ratings, run_folder):
    board = Board()
    run = trained(ratings, run_folder, callbacks=[board])
    assert board.thread is not threading.current_thread()
    assert not board.thread.is_alive()
    assert [point.step for point in board.points] == [record.step for record in run.history()]
    assert [ending.stop_reason for ending in board.endings] == ["epochs"]
    assert all(math.isfinite(value) for point in board.points for value in point.values.values())


def test_evaluations_are_told_however_rarely_steps_are(ratings, run_folder):
    board = Board(every=3600.0)
    run = trained(ratings, run_folder, callbacks=[board])
    evaluated = {record.step for record in run.history() if record.heldout is not None}
    assert {point.step for point in board.points} == evaluated | {0}


@pytest.mark.parametrize(("fails", "error"), [("open", ChannelError), ("import", UsageError)])
def test_a_tool_that_cannot_be_opened_ends_the_training_at_its_beginning(ratings, run_folder, fails, error):
    with pytest.raises(error, match=r"[Bb]oard") as told:
        trained(ratings, run_folder, callbacks=[Board(fails=fails)])
    assert "secret" not in str(told.value)
    trained(ratings, run_folder)  # nothing is in the way of another try


def test_what_a_client_says_of_its_settings_is_told_alone(ratings, run_folder):
    with pytest.raises(ChannelError) as told:
        trained(ratings, run_folder, callbacks=[Board(fails="settings")])
    assert str(told.value) == "Board cannot be opened: found ValueError: too long: 'x'. Check its address"


def test_a_tool_that_fails_later_does_not_end_the_training(ratings, run_folder):
    with pytest.warns(RuntimeWarning, match="Board has failed, and misses a part.*the board is full"):
        run = trained(ratings, run_folder, callbacks=[Board(fails="write")])
    assert run.summary.stop_reason == "epochs"


def test_a_tracker_follows_one_training_at_a_time(ratings, tmp_path):
    board = Board()

    def again(record):
        trained(ratings, tmp_path / "other", callbacks=[board])

    with pytest.raises(UsageError, match="one training at a time"):
        trained(ratings, tmp_path / "one", callbacks=[board], listen=again)
    trained(ratings, tmp_path / "third", callbacks=[board])  # it is free again
