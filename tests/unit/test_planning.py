"""Plans: whose settings go over whose, and experiments of the package."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlless.errors import UsageError
from mlless.planning import PLANS, read_plan
from mlless.recipes import parse_target
from mlless.turns import SYSTEMS
from mlless.wishes import Wishes

SMALL = """
title = "t"
note = "n"
world = "lan"
scale = 0.5
marks = [1, 2]

[settings]
workers = 3
batch_size = 100
max_time = 9.0

[jobs.a]
title = "A"
rows = 1000
features = 10

[jobs.a.settings]
learning_rate = 0.5

[theirs]
system = "pywren"
side = "published"

[mine]
system = "mlless-isp"
label = "my own"
batch_size = 7
"""


def written(folder: Path, text: str, name: str = "plan.toml") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def test_settings_go_over_one_another(tmp_path: Path) -> None:
    plan = read_plan(written(tmp_path, SMALL))
    asked = {"workers": 5, "learning_rate": 2.0}
    theirs, mine = plan.contestants(Wishes(factors=4), "a", asked, 0.5)
    assert (theirs.name, theirs.system, theirs.wishes.learning_rate) == ("theirs", "pywren", 2.0)
    assert (theirs.wishes.workers, theirs.wishes.batch_size, theirs.wishes.max_time) == (5, 50, 9.0)
    assert (mine.wishes.batch_size, mine.wishes.learning_rate, mine.wishes.factors) == (4, 2.0, 4)
    theirs, mine = plan.contestants(Wishes(), "a")
    assert (theirs.wishes.learning_rate, mine.wishes.learning_rate) == (0.5, None)
    assert plan.experiment is not None
    assert plan.experiment.labels == {"theirs": "theirs", "mine": "my own"}


def test_a_plan_that_is_like_another_says_what_is_different(tmp_path: Path) -> None:
    written(tmp_path, SMALL)
    other = f'like = "{tmp_path}/plan.toml"\n[settings]\nworkers = 4\n[theirs]\nslack = 0\n'
    plan = read_plan(written(tmp_path, other, "other.toml"))
    assert plan.experiment is not None
    assert plan.experiment.settings == {"workers": 4, "batch_size": 100, "max_time": 9.0}
    assert plan.tables["theirs"] == {"system": "pywren", "side": "published", "slack": 0}


@pytest.mark.parametrize(
    ("before", "after", "error"),
    [
        ("features = 10", "", "a job has features, or users and items"),
        ("features = 10", "features = 10\ncolour = 1", "unknown field `colour`"),
        ("scale = 0.5", "scale = 0.0", "scale is to be a number above 0"),
        ('side = "published"', 'side = "theirs"', "not a plan"),
        ("[settings]\nworkers", "[settings]\nworker", "no such setting: worker. Did you mean workers"),
        ("learning_rate = 0.5", 'learning_rate = "quick"', "jobs.a.settings.learning_rate"),
    ],
)
def test_what_is_wrong_with_an_experiment_is_told(
    before: str, after: str, error: str, tmp_path: Path
) -> None:
    assert before in SMALL
    with pytest.raises(UsageError, match=error):
        list(read_plan(written(tmp_path, SMALL.replace(before, after))).contestants(Wishes(), "a"))


@pytest.mark.parametrize("name", PLANS.names())
def test_experiments_of_the_package_hold_together(name: str) -> None:
    plan = read_plan(name)
    experiment = plan.experiment
    assert experiment is not None
    for ratio in experiment.ratios:
        assert {ratio.of, ratio.against} <= set(plan.tables)
        assert set(ratio.published) in (set(), set(experiment.jobs))
    for job, work in experiment.jobs.items():
        assert set(work.points) == {one for one, side in experiment.sides.items() if side == "published"}
        for one in plan.contestants(Wishes(), job):
            assert one.system in SYSTEMS
            assert one.wishes.target is None or parse_target(one.wishes.target)
