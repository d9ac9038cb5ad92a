"""Jobs on real worker processes against oracles: identities, not tolerances."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from integration.jobs import job

import mlless
from mlless.artifact import MODEL
from mlless.data.assembly import assemble
from mlless.data.dataset import Dataset
from mlless.data.holding import Joined
from mlless.driver import run_job
from mlless.errors import UsageError
from mlless.exchange.codec import pack
from mlless.exchange.filter import SignificanceFilter
from mlless.job import JobSpec
from mlless.membership import deal, groups_of, order_of, parts_of
from mlless.memory import MB
from mlless.models import model_of
from mlless.models.base import Moment
from mlless.records import StepRecord
from mlless.replica import Replica
from mlless.run import Run
from mlless.simulation.conditions import Durations
from mlless.simulation.jobs import simulate
from mlless.train_options import TrainOptions


def tables(run: Run) -> dict[str, bytes]:
    return {name: table.tobytes() for name, table in run.model().artifact.tables.items()}


@pytest.mark.parametrize("kind", ["ratings", "clicks"])
@pytest.mark.parametrize("sync", ["bsp", "isp"])
@pytest.mark.parametrize("kernels", ["native", "numpy"])
def test_the_same_seed_gives_the_same_file(
    kind: str, sync: str, kernels: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    dataset: Dataset = request.getfixturevalue(kind)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLLESS_KERNELS", kernels)  # read by the worker processes
        spec = job(dataset, workers=4, sync=sync, epochs=2)
        runs = [run_job(spec, dataset, tmp_path / name) for name in ("one", "two")]
    assert (runs[0].folder / MODEL).read_bytes() == (runs[1].folder / MODEL).read_bytes()
    other = run_job(msgspec.structs.replace(spec, seed=1), dataset, tmp_path / "other")
    assert tables(other) != tables(runs[0])


def oracle(spec: JobSpec, dataset: Dataset) -> dict[str, bytes]:
    """Train in one process, without channels, codec or roles, merging by the same rule.

    With slack what is not merged yet waits; each sees what all have merged, and what it has published itself.
    """
    model = model_of(spec.model)
    start = model.initial(np.random.Generator(np.random.PCG64(spec.seed)))
    common, *replicas = [Replica(model.shapes) for _ in range(1 + spec.workers)]
    for replica in (common, *replicas):
        replica.restore(start)
    waiting: list[list[bytes]] = []

    def merge(most: int) -> None:
        """Merge all steps but so many; give everyone what all have in common, and what is its own."""
        while len(waiting) > most:
            common.merge(dict(zip("1234", waiting.pop(0), strict=True)), spec.sync.merge, spec.workers)
        for rank, replica in enumerate(replicas):
            for table, merged in zip(replica.tables, common.tables, strict=True):
                table.shared[:] = merged.shared
            for updates in waiting:
                replica.merge({"own": updates[rank]}, spec.sync.merge, spec.workers)

    filters = [SignificanceFilter(spec.sync, replica) for replica in replicas]
    files = dataset.manifest.train
    owners = deal([file.rows for file in files], range(spec.workers))
    numbers = [groups_of(owners, n) for n in range(spec.workers)]
    owned = [Joined({group: dataset.read(files[group]) for group in groups}) for groups in numbers]
    parts, samples = parts_of(spec.rows, spec.batch_size, spec.workers), [1] * spec.workers
    for step in range(parts * spec.stop.epochs):
        epoch, number = divmod(step, parts)
        merge(spec.slack if number else 0)  # before an evaluation all
        part = order_of(spec.seed, epoch, parts)[number]
        updates = []
        for rank, (replica, significance) in enumerate(zip(replicas, filters, strict=True)):
            rows = owned[rank].rows
            assert rows is not None
            batch = assemble(rows, *owned[rank].bounds(part, parts), dataset.manifest.shape)
            publish = significance.prepare(step, batch.touched)
            moment = Moment(step, epoch, spec.workers)
            _, sent = model.step(replica, batch, spec.optimizer, moment, publish)
            samples[rank] = batch.samples
            update = significance.take(publish, sent)
            updates.append(pack(update, "none"))
        waiting.append(updates)
    merge(0)
    updates = []
    last = Moment(parts * spec.stop.epochs - 1, spec.stop.epochs - 1, spec.workers)
    for replica, significance, size in zip(replicas, filters, samples, strict=True):
        model.settle(replica, spec.optimizer, last, size)
        updates.append(pack(significance.flush(), "none"))
    waiting.append(updates)
    merge(0)
    return {name: array.tobytes() for name, array in common.snapshot().items()}


@pytest.mark.parametrize("kind", ["ratings", "clicks"])
@pytest.mark.parametrize("slack", [0, 3])
def test_bsp_on_four_workers_equals_a_single_process(
    kind: str, slack: int, run_folder: Path, request: pytest.FixtureRequest
) -> None:
    dataset: Dataset = request.getfixturevalue(kind)
    spec = job(dataset, workers=4, sync="bsp", epochs=2, slack=slack)
    run = run_job(spec, dataset, run_folder)
    assert not run.summary.restored
    assert tables(run) == oracle(spec, dataset)


@pytest.mark.parametrize("kind", ["ratings", "clicks"])
@pytest.mark.parametrize("sync", ["bsp", "isp"])
def test_every_pattern_gives_the_same_file(
    kind: str, sync: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    dataset: Dataset = request.getfixturevalue(kind)
    files, read = set(), []
    for pattern in ("broadcast", "allreduce", "scatter"):
        how = {"pattern": pattern, "merged_significance": "exact"}
        run = run_job(job(dataset, workers=4, sync=sync, epochs=2, **how), dataset, tmp_path / pattern)
        files.add((run.folder / MODEL).read_bytes())
        read.append(run.summary.bytes_read)
    assert len(files) == 1
    assert len(set(read)) == 3


LEAVERS = {3: (1,), 9: (0, 3)}


def leave(record: StepRecord) -> tuple[int, ...]:
    return LEAVERS.get(record.step, ())


@pytest.mark.parametrize(("sync", "slack"), [("bsp", 0), ("isp", 0), ("isp", 2)])
def test_workers_leave_and_processes_equal_the_virtual_clock(
    ratings: Dataset, run_folder: Path, sync: str, slack: int
) -> None:
    spec = job(ratings, workers=4, sync=sync, epochs=2, slack=slack)
    run = run_job(spec, ratings, run_folder, leavers=leave)
    virtual = simulate(spec, ratings, Durations(message=1e-3), leavers=leave)
    assert tables(run) == {name: array.tobytes() for name, array in virtual.tables.items()}
    history = run.history()
    workers = [record.workers for record in history[: 14 + slack]]
    assert workers == [4] * (6 + slack) + [3] * 6 + [1] * 2
    trained = sum(record.samples for record in history)
    assert trained == 2 * sum(file.rows for file in ratings.manifest.train)


def test_virtual_time_is_deterministic_and_follows_its_table(ratings: Dataset) -> None:
    spec = job(ratings, workers=3, epochs=1)
    slow = Durations(work={"compute": 1e-5}, message=1e-3, request=1e-3, byte=1e-8)
    first, again = simulate(spec, ratings, slow), simulate(spec, ratings, slow)
    assert first.seconds == again.seconds
    assert [record.time for record in first.records] == [record.time for record in again.records]
    free = simulate(spec, ratings, Durations())
    assert free.seconds == 0
    assert first.seconds > 15 * (2.4e-3 + 2e-3)  # 15 steps of 240 rows and two messages
    assert {name: array.tobytes() for name, array in free.tables.items()} == {
        name: array.tobytes() for name, array in first.tables.items()
    }


def test_training_learns(ratings: Dataset, clicks: Dataset, tmp_path: Path) -> None:
    for dataset, metric in ((ratings, "rmse"), (clicks, "log_loss")):
        run = run_job(job(dataset, workers=3), dataset, tmp_path / metric)
        history = [record.heldout[metric] for record in run.history() if record.heldout]
        assert run.summary.heldout[metric] < 0.97 * history[0]
        assert run.summary.heldout[metric] <= min(history) * (1 + 1e-6)


def test_the_summary_adds_up(ratings: Dataset, run_folder: Path) -> None:
    run = run_job(job(ratings, workers=3, epochs=2), ratings, run_folder)
    history, summary = run.history(), run.summary
    assert [record.step for record in history] == list(range(summary.steps))
    assert summary.bytes_published == sum(record.bytes_out for record in history)
    assert summary.stop_reason == "epochs"
    assert summary.epochs == 2
    assert {one.worker for one in summary.workers} == {0, 1, 2}
    cpu = sum(one.cpu_seconds or 0 for one in summary.workers)
    assert 0 < cpu < summary.cpu_seconds
    assert all((one.peak_memory or 0) > 10 * MB for one in summary.workers)
    # Everyone reads what the two others published, but for the updates of the last step.
    assert summary.bytes_read <= 2 * summary.bytes_published
    assert summary.bytes_read >= 1.5 * (summary.bytes_published - history[-1].bytes_out)


def test_a_target_stops_the_job(ratings: Dataset, run_folder: Path) -> None:
    run = run_job(job(ratings, workers=2, target="train_loss=0.7"), ratings, run_folder)
    assert run.summary.stop_reason == "target"
    assert run.history()[-4].train_loss <= 0.7 < run.history()[-5].train_loss  # type: ignore[operator]


def test_time_stops_the_job_before_it_is_over(ratings: Dataset, run_folder: Path) -> None:
    run = run_job(job(ratings, workers=2, epochs=100_000, max_time=4.0), ratings, run_folder)
    assert run.summary.stop_reason == "time"
    # To the tenth of a second it is looked at on the virtual clock: a machine at its limits may stall.
    assert run.history()[-1].time <= 5.0
    assert run.summary.steps > 2


_HEAVY = {"scipy", "sklearn", "pandas", "pyarrow", "typer", "rich", "matplotlib"}


def test_a_worker_imports_nothing_heavy() -> None:
    assert not _imported("import mlless.launch") & (_HEAVY | {"lithops", "redis", "pika", "obstore"})


def test_a_worker_imports_the_clients_its_addresses_ask_for() -> None:
    channels = (
        "from mlless.channels.opening import open_link, open_store\n"
        "from mlless.deployment import Addresses\n"
        "from mlless.errors import ChannelError\n"
        "import contextlib, mlless.launch\n"
        "addresses = Addresses('job', ('redis://127.0.0.1:1',), 'redis://127.0.0.1:1')\n"
        "with contextlib.suppress(ChannelError): open_store(addresses, 60.0)\n"
        "with contextlib.suppress(ChannelError): open_link(addresses, 0, 0)\n"
    )
    imported = _imported(channels)
    assert "redis" in imported
    assert not imported & (_HEAVY | {"lithops", "pika"})


def test_a_function_of_lithops_starts_with_nothing_heavy() -> None:
    assert not _imported("import mlless.runtimes.remote") & (_HEAVY | {"lithops", "numpy", "redis"})


def _imported(code: str) -> set[str]:
    """Return the top-level packages that a fresh process has loaded after ``code``."""
    code += "\nimport sys; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_a_missing_compiler_gives_one_warning_and_the_twin() -> None:
    code = (
        "import sys, warnings\n"
        "sys.modules['mlless.kernels.native'] = None\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    import mlless.kernels, mlless.replica\n"
        "print(mlless.kernels.NAME, len(caught), caught[0].message)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("numpy 1 mlless runs without its compiled kernels")


def test_train_tells_how_it_goes_unless_it_is_to_be_silent(
    ratings: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mlless.train(ratings.location, out=tmp_path / "one", workers="auto", epochs=2, factors=4)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert all(
        line.startswith("epoch ") and "train rmse" in line and "held-out rmse" in line for line in lines
    )
    heard: list[StepRecord] = []
    options: TrainOptions = {"workers": 2, "epochs": 1, "factors": 4}
    run = mlless.train(ratings.location, out=tmp_path / "two", verbose=False, listen=heard.append, **options)
    assert capsys.readouterr() == ("", "")
    assert heard == run.history()


def test_a_history_as_a_frame_has_a_row_a_step(ratings: Dataset, run_folder: Path) -> None:
    pandas = pytest.importorskip("pandas")
    wishes = {"epochs": 2, "tariff": "aws-lambda-x86", "tuner": "economy"}
    run = run_job(job(ratings, workers=2, **wishes), ratings, run_folder)
    frame, records = run.history(frame=True), run.history()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame["step"]) == [record.step for record in records]
    assert list(frame["times_wait"]) == [record.times.wait for record in records]
    assert list(frame["loss"].isna()) == [record.loss is None for record in records]
    evaluated = [record.heldout["rmse"] for record in records if record.heldout]
    assert list(frame["heldout_rmse"].dropna()) == evaluated
    assert not {"times", "heldout", "decision"} & set(frame.columns)


def test_without_pandas_a_frame_says_what_to_install(
    ratings: Dataset, run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_job(job(ratings, workers=1, epochs=1), ratings, run_folder)
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UsageError, match=r"needs pandas\. Install what is missing: pip install pandas"):
        run.history(frame=True)


@pytest.mark.parametrize("kind", ["ratings", "clicks"])
def test_one_worker_is_the_same_in_this_process_and_in_one_of_its_own(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    dataset: Dataset = request.getfixturevalue(kind)
    spec = job(dataset, workers=1, epochs=3)
    here = run_job(spec, dataset, tmp_path / "here")
    there = run_job(spec, dataset, tmp_path / "there", leavers=lambda record: ())
    assert (here.folder / MODEL).read_bytes() == (there.folder / MODEL).read_bytes()
    assert here.summary.workers[0].pid == os.getpid() != there.summary.workers[0].pid
    assert here.summary.heldout == there.summary.heldout
    for ours, theirs in zip(here.history(), there.history(), strict=True):
        for field in (
            "step",
            "epoch",
            "loss",
            "train_loss",
            "heldout",
            "samples",
            "bytes_out",
            "bytes_fetched",
        ):
            assert getattr(ours, field) == getattr(theirs, field), field


def test_a_job_on_this_process_may_be_stopped(ratings: Dataset, tmp_path: Path) -> None:
    def interrupt(record: StepRecord) -> None:
        if record.step == 3:
            signal.raise_signal(signal.SIGINT)

    run = run_job(job(ratings, workers=1), ratings, tmp_path / "run", listen=interrupt)
    assert run.summary.stop_reason == "interrupted"
    assert run.summary.steps == 7  # up to this one, the next, which is planned, and two to end with
    assert (run.folder / MODEL).exists()


def test_an_open_data_set_can_be_trained_on(ratings: Dataset, tmp_path: Path) -> None:
    run = mlless.train(ratings, out=tmp_path / "run", epochs=1, verbose=False)
    assert run.summary.job.fingerprint == ratings.manifest.fingerprint
