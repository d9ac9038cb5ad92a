"""File, variables and arguments, each over the one before."""

from __future__ import annotations

from typing import Literal, get_args, get_origin

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlless.cli.settings import DEFAULT, OPTIONS, TABLES, merge
from mlless.deployment import Deployment
from mlless.errors import UsageError
from mlless.wishes import Wishes

NOTHING = {}


def _values(kind, metavar):
    """Some values of a type that go with whatever the others are."""
    if metavar == "URL":
        return ["redis://a", "rediss://:pw@b:1/2"]
    if metavar == "TOOL:PLACE":
        return ["wandb", "mlflow:http://me:pw@b:1 tensorboard:c"]
    if get_origin(kind) is Literal:
        return [*get_args(kind)]
    if get_args(kind):
        return [value for member in get_args(kind) for value in _values(member, metavar)]
    return {bool: [True, False], int: [1, 2, 3], float: [0.5, 0.25, 1.0], str: ["a=1", "b"]}[kind]


VALUES = {name: _values(one.type, one.option.metavar) for name, one in OPTIONS.items()}
VALUES["runtime"] = ["lithops"]
EVERY = sorted(VALUES)


def _layer(required=()):
    """Some of the settings, at least the ``required`` ones."""
    values = {name: st.sampled_from(values) for name, values in VALUES.items()}
    must = {name: values[name] for name in required}
    return st.fixed_dictionaries(must, optional={name: values[name] for name in values if name not in must})


# With these two every combination of the others is a deployment.
REMOTE = ["store", "runtime"]


def _file(folder, layer):
    lines = []
    for table, options in TABLES.items():
        lines.append(f"[{table}]")
        lines += [f"{n} = {msgspec.json.encode(v).decode()}" for n, v in layer.items() if n in options]
    path = folder / "settings.toml"
    path.write_text("\n".join(lines))
    return path


def _variables(layer):
    return {f"MLLESS_{name.upper()}": str(value) for name, value in layer.items()}


@pytest.mark.slow
@given(file=_layer(REMOTE), variables=_layer(), arguments=_layer())
def test_each_layer_goes_over_the_one_before(tmp_path_factory, file, variables, arguments):
    path = _file(tmp_path_factory.mktemp("settings"), file)
    settings = merge(path, _variables(variables), arguments)
    fields = {
        f.name: (kind, f.default) for kind in (Wishes, Deployment) for f in msgspec.structs.fields(kind)
    }
    assert sorted(settings.all) == EVERY == sorted(fields)
    for name, one in settings.all.items():
        kind, default = fields[name]
        if name in arguments:
            expected = arguments[name], "--" + name.replace("_", "-")
        elif name in variables:
            expected = variables[name], f"MLLESS_{name.upper()}"
        elif name in file:
            expected = file[name], str(path)
        else:
            expected = default, DEFAULT
        assert (one.value, one.origin) == expected
        part = settings.wishes() if kind is Wishes else settings.deployment()
        assert getattr(part, name) == one.value


@pytest.mark.parametrize("name", EVERY)
def test_every_setting_comes_from_everywhere(tmp_path, monkeypatch, name):
    first, last = VALUES[name][0], VALUES[name][-1]
    monkeypatch.chdir(tmp_path)

    def merged(file, variables, arguments):
        return merge(file, _variables(variables), arguments).all[name]

    file = _file(tmp_path, {name: first})
    assert merged(None, {}, {}).origin == DEFAULT
    assert merged(file, {}, {}).value == first
    assert merged(file, {name: last}, {}).value == last
    assert merged(file, {name: last}, {name: first}).value == first
    assert merged(file, {name: last}, {name: first}).origin == "--" + name.replace("_", "-")


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
        ("[train]\nworkers = 'four'", "expected a whole number or auto, found 'four'"),
        ("[train]\nfactors = 'four'", "train.factors: not a value of this setting: expected a whole number"),
        ("[train]\nfactors = 1.5", "expected a whole number, found 1.5"),
        ("[train]\nfactors = true", "expected a whole number, found True"),
        ("[train]\nl2 = 'much'", "train.l2: not a value of this setting: expected a number, found 'much'"),
        ("[train]\nsync = 'asp'", "train.sync: not a value of this setting: expected one of bsp, isp"),
        ("[train]\nmerge = 3", "expected one of sum, mean, sqrt-members, sqrt-publishers, found 3"),
        ("[train]\ntarget = 0.8", "expected text, found 0.8"),
        ("[deployment]\nstore = ['redis://:s3cret@a']", "expected text, found ['redis://:***@a']"),
        ("[deployment]\nstore = 'http://u:s3cret@a'", "store from settings.toml: not the address of a store"),
        ("deployment = 'redis://:s3cret@a'", "not a table"),
        ("[train]\nstore = 'redis://a'", "no such setting: train.store. Put it into the table [deployment]"),
        ("[deployment]\nmemory = 0", "memory from settings.toml: no such memory"),
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
        ({"MLLESS_WORKERS": "four"}, "MLLESS_WORKERS: not a value of this setting: expected a whole number"),
        ({"MLLESS_FACTORS": "null"}, "expected a whole number, found null"),
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


@pytest.mark.parametrize(
    ("variable", "says"),
    [
        ("MLLESS_WORKER", "warning: no such variable: MLLESS_WORKER. Did you mean MLLESS_WORKERS?\n"),
        ("MLLESS_KERNEL", "Did you mean MLLESS_KERNELS?"),
        ("MLLESS_XYZ", "no such variable: MLLESS_XYZ. There are MLLESS_MODEL, "),
    ],
)
def test_an_unknown_variable_is_told_and_stops_nothing(tmp_path, monkeypatch, capsys, variable, says):
    monkeypatch.chdir(tmp_path)
    settings = merge(None, {variable: "s3cret", "MLLESS_FACTORS": "4"}, NOTHING)
    assert settings.wishes() == Wishes(factors=4)
    told = capsys.readouterr()
    assert says in told.err
    assert told.out == ""
    assert "s3cret" not in told.err


def test_variables_of_others_and_empty_ones_are_passed_over(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    environment = {"MLLESS_KERNELS": "numpy", "MLLESS_DEBUG": "1", "MLLESS_BUS": "", "PATH": "/bin"}
    assert {one.origin for one in merge(None, environment, NOTHING).all.values()} == {DEFAULT}
    assert capsys.readouterr() == ("", "")


def test_passwords_are_not_shown():
    environment = {"MLLESS_STORE": "redis://me:s3@c/ret@host:6379", "MLLESS_BUS": "amqp://u:s3@host"}
    settings = merge(None, environment, NOTHING)
    assert settings.all["store"].shown == "redis://me:***@host:6379"
    assert settings.all["bus"].shown == "amqp://u:***@host"
    with pytest.raises(UsageError, match="not percent-encoded") as error:
        settings.deployment()
    assert "ret@" not in str(error.value)


def test_auto_is_a_number_of_workers_everywhere(tmp_path):
    file = _file(tmp_path, {"workers": 3})
    assert merge(file, {"MLLESS_WORKERS": "auto"}, NOTHING).wishes().workers == "auto"
    assert merge(file, {}, {"workers": "auto"}).wishes() == Wishes()
    assert merge(_file(tmp_path, {"workers": "auto"}), {}, {"workers": "5"}).wishes().workers == 5
    with pytest.raises(
        UsageError, match="`workers`: not a value of this setting: expected a whole number or auto, found few"
    ):
        merge(None, {}, {"workers": "few"})
