"""Who takes part in a comparison, in what order, and when one may be gone on with."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from mlless import turns
from mlless.baselines.contract import System
from mlless.data.dataset import Dataset
from mlless.deployment import Deployment
from mlless.errors import UsageError
from mlless.turns import Contestant, Plan, contestants
from mlless.wishes import Wishes

PRICED = Wishes(tariff="published-ibm")


def names(taking: list[Contestant]) -> list[str]:
    return [one.name for one in taking]


@pytest.fixture
def systems(monkeypatch: pytest.MonkeyPatch) -> dict[str, System]:
    known = {
        "any": System(about=""),
        "clicks-only": System(about="", kinds=("lr",)),
        "priced": System(about="", priced=True),
        "absent": System(about="", packages={"no_such_package": "no-such-package", "msgspec": "msgspec"}),
        "stubborn": System(about="", keeps=("l2", "optimizer")),
    }
    monkeypatch.setattr(turns, "SYSTEMS", known)
    return known


def test_who_cannot_take_part_is_left_out_and_told_why(systems, ratings: Dataset) -> None:
    taking, notes = contestants(Wishes(l2=0.1), ratings)
    assert names(taking) == ["any", "stubborn"]
    assert notes == [
        "left out priced: it needs prices: name a --tariff",
        "left out absent: not installed: pip install no-such-package",
        "without effect on stubborn: l2",
    ]
    taking, notes = contestants(PRICED, ratings, ["priced", "any"])
    assert (names(taking), notes) == (["priced", "any"], [])
    _, notes = contestants(Wishes(), ratings, ["clicks-only", "any"])
    assert notes == ["left out clicks-only: it does not train on ratings"]
    with pytest.raises(UsageError, match=r"no system can take part.*pip install no-such-package"):
        contestants(PRICED, ratings, ["absent"])


def test_what_does_not_fit_is_told_before_any_turn(systems, ratings: Dataset) -> None:
    systems["any"] = System(about="", moves={})
    systems["halved"] = System(about="", moves={}, wishes={"slack": 0})
    wishes = Wishes(slack=3, pattern="scatter")
    taking, notes = contestants(wishes, ratings, ["any", "halved"])
    assert names(taking) == ["halved"]
    assert notes[0].startswith("left out any: --slack works with --pattern broadcast only")
    with pytest.raises(UsageError, match="`slack` works with `pattern` broadcast only"):
        contestants(wishes, ratings, ["any"])


def test_all_have_the_same_number_of_workers(systems, ratings: Dataset) -> None:
    taking, _ = contestants(Wishes(), ratings)
    assert {one.wishes.workers for one in taking} == {4}


def test_a_name_that_there_is_not_is_a_near_miss(systems, ratings: Dataset) -> None:
    with pytest.raises(UsageError, match=r"no such system: prised\. Did you mean priced"):
        contestants(Wishes(), ratings, ["prised"])


def test_a_plan_names_contestants_and_their_settings(systems, ratings: Dataset, tmp_path: Path) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text('[small]\nsystem = "any"\nbatch_size = 10\n[large]\nsystem = "any"\nbatch_size = 1000\n')
    taking, _ = contestants(Wishes(factors=3), ratings, (), plan)
    assert [(one.name, one.system, one.wishes.batch_size, one.wishes.factors) for one in taking] == [
        ("small", "any", 10, 3),
        ("large", "any", 1000, 3),
    ]
    taking, _ = contestants(Wishes(), ratings, ["any"], plan)
    assert names(taking) == ["any", "small", "large"]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("[a", "not a plan in TOML"),
        ("a = 1", r"a: not a contestant: expected \[a\] with system"),
        ("[a]\nworkers = 3", "a: not a contestant"),
        ('[a]\nsystem = "any"\nbatchsize = 3', "a: no such setting: batchsize. Did you mean batch_size"),
        ('[a]\nsystem = "any"\nworkers = "many"', r"a\.workers: not a value of this setting"),
        ('["a/b"]\nsystem = "any"', "not a name for a contestant.*found a/b"),
        ('[any]\nsystem = "any"', "not a name for a contestant.*found any, 2 times"),
    ],
)
def test_what_is_wrong_with_a_plan_is_told(
    systems, ratings: Dataset, tmp_path: Path, text: str, error: str
) -> None:
    (tmp_path / "plan.toml").write_text(text)
    with pytest.raises(UsageError, match=error):
        contestants(Wishes(), ratings, ["any"] if "2 times" in error else (), tmp_path / "plan.toml")


def test_a_plan_that_is_not_there_is_told(systems, ratings: Dataset, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nope\.toml: there is no such plan\. Name a file in TOML"):
        contestants(Wishes(), ratings, (), tmp_path / "nope.toml")


def plan_of(*wishes: Wishes, repetitions: int = 2, **changes: object) -> Plan:
    taking = tuple(Contestant(f"c{number}", "any", one) for number, one in enumerate(wishes))
    plan = Plan("data", "12345678", Deployment(), taking, repetitions)
    return msgspec.structs.replace(plan, **changes)


def test_repetitions_are_interleaved_and_begin_with_another_each() -> None:
    order = [turn.out for turn in turns._turns(plan_of(Wishes(), Wishes(), Wishes()), "out")]
    assert order == [f"out/runs/{run}" for run in ("c0-1", "c1-1", "c2-1", "c1-2", "c2-2", "c0-2")]


def test_a_comparison_is_gone_on_with_unless_it_is_another_one(tmp_path: Path) -> None:
    out = str(tmp_path)
    turns._check_plan(plan_of(Wishes(), Wishes()), out, overwrite=False)
    turns._check_plan(plan_of(Wishes(), Wishes(), Wishes(), repetitions=5), out, overwrite=False)
    for other in (
        plan_of(Wishes(factors=3), Wishes()),
        plan_of(Wishes(), fingerprint="87654321"),
        plan_of(Wishes(), deployment=Deployment(store="redis://localhost:6379")),
    ):
        with pytest.raises(UsageError, match="another comparison is here"):
            turns._check_plan(other, out, overwrite=False)
    turns._check_plan(plan_of(Wishes(factors=3)), out, overwrite=True)
    turns._check_plan(plan_of(Wishes(factors=3)), out, overwrite=False)


def test_passwords_stay_out_of_the_plan(tmp_path: Path) -> None:
    secret = plan_of(Wishes(), deployment=Deployment(store="redis://me:secret@localhost:6379"))
    turns._check_plan(secret, str(tmp_path), overwrite=False)
    assert "secret" not in (tmp_path / turns.PLAN).read_text()
    turns._check_plan(secret, str(tmp_path), overwrite=False)


def test_a_folder_of_something_else_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(UsageError, match=r"not a comparison's folder.*found model\.safetensors"):
        turns._check_plan(plan_of(Wishes()), str(tmp_path), overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]
