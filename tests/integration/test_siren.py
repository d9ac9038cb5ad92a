"""SIREN on real processes: one function against a single process, several, a budget, and who is lost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import msgspec
import pytest

import mlless
from mlless.baselines import siren
from mlless.baselines.contract import System
from mlless.baselines.scheduling import Action, State, Taken
from mlless.data.dataset import Dataset
from mlless.deployment import Deployment
from mlless.driver import run_job
from mlless.errors import WorkerFailed
from mlless.job import JobSpec
from mlless.locations import Location, place_of
from mlless.records import StepRecord, Summary
from mlless.wishes import Wishes

SIREN = siren.SYSTEMS["siren"]


def planned(dataset: Dataset, **wishes: object) -> JobSpec:
    """Return a job of three functions and two epochs of 18 mini-batches, unless ``wishes`` say otherwise."""
    rows = sum(file.rows for file in dataset.manifest.train)
    wishes = {"workers": 3, "epochs": 2, "batch_size": rows // 18, "seed": 5, **wishes}
    return SIREN.plan(msgspec.convert(wishes, Wishes), dataset)


def run(
    spec: JobSpec, dataset: Dataset, out: Location, system: System = SIREN
) -> tuple[Summary, list[StepRecord]]:
    told: list[StepRecord] = []
    summary = system.run("siren", spec, dataset, place_of(out), deployment=Deployment(), listen=told.append)
    return summary, told


def tables(run: Location) -> dict[str, bytes]:
    return {name: table.tobytes() for name, table in mlless.load(run).artifact.tables.items()}


def led(lead: Callable[..., object], entry: str = SIREN.entry) -> System:
    return System(about="", wishes=SIREN.wishes, served=False, talks=False, entry=entry, lead=lead)


@pytest.mark.parametrize("kind", ["ratings", "clicks"])
def test_one_function_takes_the_steps_of_a_single_process(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    dataset: Dataset = request.getfixturevalue(kind)
    spec = planned(dataset, workers=1)
    summary, told = run(spec, dataset, tmp_path / "siren")
    own: list[StepRecord] = []
    run_job(spec, dataset, tmp_path / "alone", listen=own.append)
    assert tables(tmp_path / "siren") == tables(tmp_path / "alone")
    assert [one.heldout for one in told] == [one.heldout for one in own if one.heldout]
    assert sum(one.samples for one in told) == 2 * spec.rows
    assert (summary.steps, summary.epochs) == (3, 2.0)


class Watched:
    """A policy that takes one action after the other, and remembers what it was told."""

    def __init__(self) -> None:
        self.actions: Sequence[Action] = ()
        self.states: list[State] = []
        self.episode: Sequence[Taken] = ()

    def __call__(self, actions: Sequence[Action], spec: JobSpec) -> Watched:
        self.actions = actions
        return self

    def act(self, state: State) -> int:
        self.states.append(state)
        return (len(self.states) - 1) % len(self.actions)

    def learn(self, episode: Sequence[Taken]) -> None:
        self.episode = episode


def test_a_policy_sets_the_functions_of_each_epoch_and_learns_from_the_job(
    clicks: Dataset, tmp_path: Path
) -> None:
    watched = Watched()
    spec = planned(clicks, epochs=3, target="log_loss=0.01", tariff="aws-lambda-x86", max_cost=1.0)
    summary, told = run(spec, clicks, tmp_path / "run", led(partial(siren.lead, scheduler=watched)))
    assert watched.actions == [Action(1, 2048), Action(2, 2048), Action(3, 2048)]
    assert [one.workers for one in told[:-1]] == [1, 2, 3]
    assert [one.samples for one in told] == [spec.rows] * 3 + [0]
    assert [state.done for state in watched.states] == pytest.approx([0, 1 / 3, 2 / 3])
    assert [state.workers for state in watched.states] == pytest.approx([0, 1 / 3, 2 / 3])
    assert 1 == watched.states[0].left > watched.states[1].left > watched.states[2].left > 0
    assert watched.states[2].loss < 1
    assert [one.action for one in watched.episode] == [0, 1, 2]
    assert watched.episode[0].reward == -1.0
    assert watched.episode[2].reward < -10.0  # the target was not reached
    assert summary.bill is not None
    bill = {item.what: item.quantity for item in summary.bill.items}
    assert bill["invocations"] == 6
    assert bill["object store, writes"] >= 3 * 18
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "model.safetensors", "history.jsonl", "summary.json",
    }  # fmt: skip


def test_a_job_never_goes_over_its_budget(ratings: Dataset, tmp_path: Path) -> None:
    """The budget pays for a few seconds of two functions, and there are epochs for hours."""
    spec = planned(ratings, workers=2, epochs=5000, patience=5000, tariff="aws-lambda-x86", max_cost=0.0015)
    summary, told = run(spec, ratings, tmp_path / "run")
    assert summary.stop_reason == "cost"
    assert summary.bill is not None
    assert 0.0003 < summary.bill.total <= 0.0015
    assert 0 < len(told) < 5000
    assert mlless.evaluate(tmp_path / "run", ratings.location)["rmse"] < 1.2


def test_a_budget_that_pays_for_no_epoch_leaves_the_model_as_it_starts(
    ratings: Dataset, tmp_path: Path
) -> None:
    spec = planned(ratings, workers=2, tariff="aws-lambda-x86", max_cost=0.0004)
    summary, told = run(spec, ratings, tmp_path / "run")
    assert (summary.stop_reason, len(told)) == ("cost", 1)
    assert summary.bill is not None
    assert summary.bill.total <= 0.0004


FAULTY = """
import os, signal
from pathlib import Path
from mlless.baselines import siren
from mlless.baselines.contract import run_function

def main(payload):
    run_function(payload, work)

def work(function):
    once = Path(os.environ["ONCE"])
    put = function.objects.put
    def killed(path, data):
        put(path, data)
        if path == "model" and function.launch.me[0] == 1 and not once.exists():
            once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    function.objects.put = killed
    if os.environ.get("RAISES") and function.launch.me[0] == 1:
        raise RuntimeError("a fault of this test")
    siren.work(function)
"""


@pytest.fixture
def faulty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> System:
    """SIREN with a function that is killed once it has written the model; all of it raise if RAISES."""
    (tmp_path / "faults").mkdir()
    (tmp_path / "faults" / "faulty_siren.py").write_text(FAULTY)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'faults'}:{Path(mlless.__file__).parents[1]}")
    monkeypatch.setenv("ONCE", str(tmp_path / "once"))
    return led(siren.lead, "faulty_siren:main")


def test_a_function_that_is_killed_is_started_anew(faulty: System, clicks: Dataset, tmp_path: Path) -> None:
    spec = planned(clicks)
    _, told = run(spec, clicks, tmp_path / "run", faulty)
    (loss,) = [loss for one in told for loss in one.losses]
    assert "function 1 died" in loss
    assert "started anew" in loss
    assert [one.samples for one in told] == [spec.rows, spec.rows, 0]


def test_a_function_that_fails_again_and_again_is_told(
    faulty: System, clicks: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAISES", "1")
    with pytest.raises(WorkerFailed, match=r"function 1 failed: RuntimeError\('a fault of this test'\)"):
        run(planned(clicks), clicks, tmp_path / "run", faulty)
