"""What is made from the declared options: values; of ``train`` the signature, types and documentation."""

from __future__ import annotations

import importlib.util
import inspect
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Literal, get_type_hints

import msgspec
import pytest

import mlless
from mlless.deployment import Deployment
from mlless.errors import UsageError
from mlless.options import Option, declared, made, spelt, takes_options, worded
from mlless.train_options import TrainOptions
from mlless.wishes import Wishes

ROOT = Path(__file__).parents[2]


class Kitchen(msgspec.Struct, frozen=True, kw_only=True):
    """A struct of options."""

    cups: Annotated[int | Literal["auto"] | None, Option("Table", "Cups.", "as many as guests")] = None
    tea: Annotated[Literal["green", "black"], Option("Table", "What is brewed.")] = "green"
    hot: Annotated[float | None, Option("Stove", "Degrees.", metavar="CELSIUS")] = None


def test_a_declaration_is_read() -> None:
    cups, tea, hot = declared(Kitchen)
    assert (cups.name, cups.flag, cups.type, cups.default) == ("cups", "--cups", int | Literal["auto"], None)
    assert [one.unless_given for one in (cups, tea, hot)] == ["as many as guests", "green", "none"]
    assert [worded(one.type) for one in (cups, tea, hot)] == [
        "a whole number or auto", "one of green, black", "a number",
    ]  # fmt: skip
    assert [spelt(one.type) for one in (cups, tea)] == ['int | Literal["auto"]', 'Literal["green", "black"]']


def test_a_struct_is_made_of_its_own_options() -> None:
    assert made(Kitchen, {"cups": 3, "hot": 80, "tea": None, "chairs": 4}) == Kitchen(cups=3, hot=80.0)
    with pytest.raises(UsageError, match="expected one of green, black, found 'red'"):
        made(Kitchen, {"tea": "red"})


def test_a_password_is_not_told() -> None:
    with pytest.raises(UsageError, match=r"store: .* expected text, found \['redis://:\*\*\*@a'\]"):
        made(Deployment, {"store": ["redis://:s3cret@a"]})


def test_a_function_takes_them_by_name() -> None:
    @takes_options(*declared(Kitchen))
    def brew(guests: int, **options: object) -> object:
        """Brew.

        Long.
        """
        return guests, options

    assert brew(2, tea="black") == (2, {"tea": "black"})
    assert list(inspect.signature(brew).parameters) == ["guests", "cups", "tea", "hot"]
    assert inspect.getdoc(brew) == (
        "Brew.\n\nLong.\n\nOther Parameters\n----------------\n"
        'cups : int | Literal["auto"], default: as many as guests\n    Cups.\n'
        'tea : Literal["green", "black"], default: green\n    What is brewed.\n'
        "hot : float, default: none\n    Degrees."
    )
    with pytest.raises(TypeError, match=r"^brew\(\) has no argument teas: did you mean tea\?$"):
        brew(2, teas="black")
    with pytest.raises(TypeError, match="no argument sugar: there are guests, cups, tea, hot"):
        brew(2, sugar=1)


def test_train_has_the_options_that_wishes_and_deployment_declare() -> None:
    options = [*declared(Wishes), *declared(Deployment)]
    assert len({one.name for one in options}) == len(options)
    typed = get_type_hints(TrainOptions)
    assert list(typed) == [one.name for one in options]
    parameters = inspect.signature(mlless.train).parameters
    for one in options:
        assert typed[one.name] == one.type | None
        assert parameters[one.name].annotation == one.type | None
        assert parameters[one.name].default == one.default
    assert list(parameters)[:5] == ["dataset", "out", "overwrite", "verbose", "listen"]


def test_a_misspelt_option_of_train_is_named(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"train\(\) has no argument worker: did you mean workers\?"):
        mlless.train(tmp_path, out=tmp_path / "run", worker=4)  # type: ignore[call-arg]


def test_what_is_made_from_the_declarations_is_up_to_date() -> None:
    """If this fails: python tools/write_options.py."""
    spec = importlib.util.spec_from_file_location("write_options", ROOT / "tools" / "write_options.py")
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    assert tool.TYPES.read_text() == tool.types()
    assert tool.PAGE.read_text() == tool.page(tool.PAGE.read_text())
    assert "| `learning_rate` | a number |" in tool.PAGE.read_text()


RIGHT = 'mlless.train("data", out="run", workers="auto", l2=1, model="mf", store=None, verbose=False)'
WRONG = {
    'mlless.train("data", out="run", worker=4)': 'Unexpected keyword argument "worker"',
    'mlless.train("data", out="run", workers=2.5)': 'incompatible type "float"',
    'mlless.train("data", out="run", sync="BSP")': "incompatible type \"Literal['BSP']\"",
    'mlless.train("data")': 'Missing named argument "out"',
}


@pytest.mark.slow
def test_a_type_checker_knows_the_options(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    sample = tmp_path / "sample.py"
    sample.write_text("import mlless\n" + "\n".join([RIGHT, *WRONG]) + "\n")
    command = [sys.executable, "-m", "mypy", str(sample)]
    environment = {**os.environ, "MYPYPATH": str(ROOT / "src")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    told = [line for line in done.stdout.splitlines() if "sample.py:" in line and "error" in line]
    assert len(told) == len(WRONG), done.stdout + done.stderr
    for number, (line, message) in enumerate(zip(told, WRONG.values(), strict=True), start=3):
        assert f"sample.py:{number}: error:" in line
        assert message in line
