"""Settings from file, variables and options: as ``config`` shows them, and as ``train`` takes them."""

from __future__ import annotations

import json
import os

import pytest
from servers.redis import QUOTED

FILE = """
[train]
workers = 1
factors = 3
epochs = 2

[deployment]
store = "redis://me:s3cret@127.0.0.1:1"
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "mlless.toml").write_text(FILE)
    return tmp_path


def _with(**variables):
    return {**os.environ, **{f"MLLESS_{name}": value for name, value in variables.items()}}


def test_config_says_what_holds_and_where_it_is_from(mlless, folder):
    done = mlless(
        "config", "--epochs", 5, "--json", cwd=folder, env=_with(FACTORS="4", BUS="amqp://u:s3cret@h")
    )
    told = json.loads(done.stdout)
    assert told["file"] == "mlless.toml"
    assert told["train"]["workers"] == {"value": 1, "from": "mlless.toml"}
    assert told["train"]["factors"] == {"value": 4, "from": "MLLESS_FACTORS"}
    assert told["train"]["epochs"] == {"value": 5, "from": "--epochs"}
    assert told["train"]["l2"] == {"value": None, "from": "default"}
    assert told["deployment"]["store"] == {"value": "redis://me:***@127.0.0.1:1", "from": "mlless.toml"}
    assert told["deployment"]["bus"] == {"value": "amqp://u:***@h", "from": "MLLESS_BUS"}
    assert "s3cret" not in done.stdout


def test_config_speaks_to_a_person_in_the_layout_of_the_file(mlless, folder):
    lines = mlless("config", cwd=folder).stdout.splitlines()
    assert lines[0] == "# file: mlless.toml"
    assert [" ".join(line.split()) for line in lines if "mlless.toml" in line][1:] == [
        "factors = 3 # mlless.toml",
        "workers = 1 # mlless.toml",
        "epochs = 2 # mlless.toml",
        'store = "redis://me:***@127.0.0.1:1" # mlless.toml',
    ]
    again = folder / "again.toml"
    again.write_text("\n".join(lines))
    told = json.loads(mlless("config", "--config", again, "--json", cwd=folder).stdout)
    assert told["train"]["factors"] == {"value": 3, "from": str(again)}


WRONG = [
    (["--config", "none.toml"], {}, "none.toml: cannot read the settings"),
    ([], {"CONFIG": "none.toml"}, "none.toml: cannot read the settings"),
    (
        [],
        {"WORKERS": "few"},
        "MLLESS_WORKERS: not a value of this setting: expected a whole number or auto, found few",
    ),
    (["--store", "http://u:s3cret@h"], {}, "store from --store: not the address of a store"),
    (["--memory", "0"], {}, "memory from --memory: no such memory: expected a number from 1, found 0"),
    (["--runtime", "lithops", "--store", "embedded"], {}, "reaches no further than this machine"),
]


def _is_told(done, says):
    assert says in done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert "s3cret" not in done.stderr


@pytest.mark.parametrize(("arguments", "variables", "says"), WRONG)
def test_what_is_wrong_is_told(mlless, folder, arguments, variables, says):
    _is_told(mlless("config", *arguments, code=2, cwd=folder, env=_with(**variables)), says)


def test_what_is_wrong_is_told_by_every_command(mlless, folder, ratings):
    arguments, _, says = WRONG[-1]
    _is_told(mlless("doctor", *arguments, code=2, cwd=folder), says)
    _is_told(mlless("train", ratings.dataset, "--out", "run", *arguments, code=2, cwd=folder), says)
    assert not (folder / "run").exists()


def test_a_mistyped_variable_is_told_and_the_rest_holds(mlless, folder):
    done = mlless("config", "--json", cwd=folder, env=_with(WROKERS="3", FACTORS="4"))
    assert done.stderr == "warning: no such variable: MLLESS_WROKERS. Did you mean MLLESS_WORKERS?\n"
    assert json.loads(done.stdout)["train"]["factors"]["value"] == 4
    assert mlless("tariff", cwd=folder, env=_with(WROKERS="3")).stderr == ""  # it uses no settings


def test_train_takes_the_settings(mlless, folder, ratings):
    done = mlless(
        "train", ratings.dataset, "--store", "embedded", "--epochs", 1, "--out", "run", "--json",
        cwd=folder, env=_with(FACTORS="4"),
    )  # fmt: skip
    job = json.loads(done.stdout)["job"]
    assert (job["workers"], job["model"]["factors"], job["stop"]["epochs"]) == (1, 4, 1)


def test_train_says_where_it_runs_and_no_password(mlless, ratings, tmp_path, secure_redis_server):
    done = mlless(
        "train", ratings.dataset, "--workers", 2, "--epochs", 1, "--out", tmp_path / "run",
        env=_with(STORE=secure_redis_server.url),
    )  # fmt: skip
    where = next(line for line in done.stdout.splitlines() if line.startswith("where"))
    assert "rediss://:***@127.0.0.1" in where
    assert secure_redis_server.url not in done.stdout
    assert all(QUOTED not in path.read_text() for path in (tmp_path / "run").glob("*.json*"))
