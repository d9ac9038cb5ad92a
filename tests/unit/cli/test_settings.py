"""File, variables and arguments, each over the one before."""

from __future__ import annotations

import inspect
from dataclasses import fields
from typing import get_args, get_type_hints

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlless import driver
from mlless.cli import options
from mlless.cli.settings import DEFAULT, TABLES, merge
from mlless.deployment import Deployment
from mlless.errors import UsageError
from mlless.recipes import Wishes

# Of every setting some values that go with whatever the others are.
VALUES = {
    ("train", "model"): ["mf", "lr"],
    ("train", "workers"): [1, 2, 3],
    ("train", "sync"): ["bsp", "isp"],
    ("train", "significance"): [0.5, 0.25, 1.0],
    ("train", "factors"): [10, 20, 30],
    ("train", "optimizer"): ["adagrad", "nesterov"],
    ("train", "learning_rate"): [0.5, 0.25, 1.0],
    ("train", "l2"): [0.5, 0.25, 1.0],
    ("train", "merge"): ["sum", "mean", "sqrt-members"],
    ("train", "compression"): ["none", "zstd"],
    ("train", "epochs"): [1, 2, 3],
    ("train", "patience"): [1, 2, 3],
    ("train", "target"): ["rmse=0.8", "auc=0.75", "train_loss=1"],
    ("train", "max_time"): [0.5, 0.25, 1.0],
    ("train", "max_cost"): [0.5, 0.25, 1.0],
    ("train", "tariff"): ["aws-lambda-x86", "aws-lambda-arm", "published-ibm"],
    ("train", "tuner"): ["published", "economy"],
    ("train", "min_workers"): [1, 2, 3],
    ("train", "seed"): [1, 2, 3],
    ("deployment", "store"): ["redis://a", "rediss://:pw@b:1/2", "redis://c,redis://d"],
    ("deployment", "bus"): ["redis://a", "amqp://u:pw@b", "amqps://c"],
    ("deployment", "runtime"): ["lithops"],
    ("deployment", "memory"): [512, 1024, 2048],
    ("deployment", "time_limit"): [60, 120, 180],
}
EVERY = sorted(VALUES)
NOTHING = {"train": {}, "deployment": {}}


def _layer(required=()):
    """Some of the settings, at least the ``required`` ones."""
    values = {key: st.sampled_from(values) for key, values in VALUES.items()}
    must = {key: values[key] for key in required}
    return st.fixed_dictionaries(must, optional={key: values[key] for key in values if key not in must})


# With these two every combination of the others is a deployment.
REMOTE = [("deployment", "store"), ("deployment", "runtime")]


def _file(folder, layer):
    lines = []
    for table in TABLES:
        lines.append(f"[{table}]")
        lines += [f"{n} = {msgspec.json.encode(v).decode()}" for (t, n), v in layer.items() if t == table]
    path = folder / "settings.toml"
    path.write_text("\n".join(lines))
    return path


def _variables(layer):
    return {f"MLLESS_{name.upper()}": str(value) for (_, name), value in layer.items()}


def _arguments(layer):
    return {table: {n: v for (t, n), v in layer.items() if t == table} for table in TABLES}


@given(file=_layer(REMOTE), variables=_layer(), arguments=_layer())
def test_each_layer_goes_over_the_one_before(tmp_path_factory, file, variables, arguments):
    path = _file(tmp_path_factory.mktemp("settings"), file)
    settings = merge(path, _variables(variables), _arguments(arguments))
    defaults = {(t, f.name): f.default for t, kind in TABLES.items() for f in msgspec.structs.fields(kind)}
    assert sorted((one.table, one.name) for one in settings.all) == EVERY == sorted(defaults)
    for one in settings.all:
        key = one.table, one.name
        if key in arguments:
            expected = arguments[key], "--" + one.name.replace("_", "-")
        elif key in variables:
            expected = variables[key], f"MLLESS_{one.name.upper()}"
        elif key in file:
            expected = file[key], str(path)
        else:
            expected = defaults[key], DEFAULT
        assert (one.value, one.origin) == expected
        part = settings.wishes() if one.table == "train" else settings.deployment()
        assert getattr(part, one.name) == one.value


@pytest.mark.parametrize("key", EVERY)
def test_every_setting_comes_from_everywhere(tmp_path, monkeypatch, key):
    _, name = key
    first, last = VALUES[key][0], VALUES[key][-1]
    monkeypatch.chdir(tmp_path)

    def merged(file, variables, arguments):
        settings = merge(file, _variables(variables), _arguments(arguments))
        return next(one for one in settings.all if (one.table, one.name) == key)

    file = _file(tmp_path, {key: first})
    assert merged(None, {}, {}).origin == DEFAULT
    assert merged(file, {}, {}).value == first
    assert merged(file, {key: last}, {}).value == last
    assert merged(file, {key: last}, {key: first}).value == first
    assert merged(file, {key: last}, {key: first}).origin == "--" + name.replace("_", "-")


def test_without_anything_it_is_the_defaults(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = merge(None, {}, NOTHING)
    assert settings.file is None
    assert settings.wishes() == Wishes()
    assert settings.deployment() == Deployment()


def test_which_file_is_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(["mlless.toml", "variable.toml", "argument.toml"], 1):
        (tmp_path / name).write_text(f"[train]\nworkers = {number}\n")
    assert merge(None, {}, NOTHING).wishes().workers == 1
    environment = {"MLLESS_CONFIG": "variable.toml"}
    assert merge(None, environment, NOTHING).wishes().workers == 2
    assert merge(tmp_path / "argument.toml", environment, NOTHING).wishes().workers == 3


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[train]\nworker = 4", "no such setting: train.worker. Did you mean workers?"),
        ("[deployment]\nstor = 'x'", "no such setting: deployment.stor. Did you mean store?"),
        ("[train]\nstore = 'redis://a'", "no such setting: train.store"),
        ("[trian]\nworkers = 4", "no such table: trian. Did you mean train?"),
        ("workers = 4", "no such table: workers. Put it into the table [train]"),
        ("bus = 'redis://a'", "Put it into the table [deployment]"),
        ("train = 4", "not a table: expected [train], found train = 4"),
        ("[train]\nworkers = 'four'", "train.workers: not a value of this setting: expected a whole number"),
        ("[train]\nworkers = 1.5", "expected a whole number, found 1.5"),
        ("[train]\nworkers = true", "expected a whole number, found True"),
        ("[train]\nl2 = 'much'", "train.l2: not a value of this setting: expected a number, found much"),
        ("[train]\nsync = 'asp'", "train.sync: not a value of this setting: expected one of bsp, isp"),
        ("[train]\nmerge = 3", "expected one of sum, mean, sqrt-members, sqrt-publishers, found 3"),
        ("[train]\ntarget = 0.8", "expected text, found 0.8"),
        ("[deployment]\nstore = ['redis://:s3cret@a']", "expected text, found ['redis://:***@a']"),
        ("[deployment]\nstore = 'http://u:s3cret@a'", "store from settings.toml: not the address of a store"),
        ("deployment = 'redis://:s3cret@a'", "not a table"),
        ("[train]\nstore = 'redis://a'", "no such setting: train.store. Put it into the table [deployment]"),
        ("[deployment]\nmemory = 512", "memory from settings.toml: processes of this machine"),
        ("[train\nworkers = 4", "not a TOML file: found Expected ']'"),
        ("[train]\nworkers = \n", "line 2"),
        ("\xff", "not a TOML file"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(tmp_path, monkeypatch, text, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "settings.toml").write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError) as error:
        merge((tmp_path / "settings.toml").relative_to(tmp_path), {}, NOTHING).deployment()
    assert str(error.value).startswith(("settings.toml: ", "store from", "memory from"))
    assert says in str(error.value)
    assert "s3cret" not in str(error.value)


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"MLLESS_WORKER": "4"}, "no such variable: MLLESS_WORKER. Did you mean MLLESS_WORKERS?"),
        ({"MLLESS_KERNEL": "numpy"}, "Did you mean MLLESS_KERNELS?"),
        ({"MLLESS_XYZ": "1"}, "no such variable: MLLESS_XYZ. There are MLLESS_MODEL, "),
        ({"MLLESS_WORKERS": "four"}, "MLLESS_WORKERS: not a value of this setting: expected a whole number"),
        ({"MLLESS_WORKERS": "null"}, "expected a whole number, found null"),
        ({"MLLESS_MODEL": "svm"}, "MLLESS_MODEL: not a value of this setting: expected one of mf, lr"),
        ({"MLLESS_STORE": "http://:s3cret@a"}, "store from MLLESS_STORE: not the address of a store"),
        ({"MLLESS_CONFIG": "none.toml"}, "none.toml: cannot read the settings: No such file"),
    ],
)
def test_what_is_wrong_in_a_variable_is_named(tmp_path, monkeypatch, variables, says):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as error:
        merge(None, variables, NOTHING).deployment()
    assert says in str(error.value)
    assert "s3cret" not in str(error.value)


def test_variables_of_others_and_empty_ones_are_passed_over(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    environment = {"MLLESS_KERNELS": "numpy", "MLLESS_DEBUG": "1", "MLLESS_BUS": "", "PATH": "/bin"}
    assert {one.origin for one in merge(None, environment, NOTHING).all} == {DEFAULT}


def test_passwords_are_not_shown():
    environment = {"MLLESS_STORE": "redis://me:s3@c/ret@host:6379", "MLLESS_BUS": "amqp://u:s3@host"}
    settings = merge(None, environment, NOTHING)
    shown = {one.name: one.shown for one in settings.all}
    assert shown["store"] == "redis://me:***@host:6379"
    assert shown["bus"] == "amqp://u:***@host"
    with pytest.raises(UsageError, match="not percent-encoded") as error:
        settings.deployment()
    assert "ret@" not in str(error.value)


@pytest.mark.parametrize(("group", "kind"), [(options.Training, Wishes), (options.Place, Deployment)])
def test_options_and_the_python_function_are_those_of_the_settings(group, kind):
    hints = get_type_hints(group)
    settings = {field.name: field for field in msgspec.structs.fields(kind)}
    assert {field.name for field in fields(group)} == set(settings)
    parameters = inspect.signature(driver.train, eval_str=True).parameters
    for name, field in settings.items():
        assert hints[name] == field.type | None
        assert set(get_args(hints[name])) - {type(None)}
        assert parameters[name].default == field.default
        assert parameters[name].annotation == field.type


def test_what_holds_unless_given_is_said_of_every_option():
    for _, name in EVERY:
        assert options.unless_given(name) not in ("", "True")
    assert options.unless_given("sync") == Wishes().sync
    assert options.unless_given("seed") == str(Wishes().seed)
    assert options.unless_given("runtime") == Deployment().runtime
