"""The package as a user meets it: its public names, and no others; what an index shows and hands out."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from email import message_from_bytes
from pathlib import Path

import numpy as np
import pandas
import pytest

import mlless
from mlless import tracking
from mlless.data.synthetic import write_ratings
from mlless.errors import UsageError
from mlless.function.build import PYTHONS

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
MADE = {".git", ".venv", "venv", "build", "compare", "demo", "dist", "site"}  # in a checkout, by its use
LINK = re.compile(r"\]\((?!\w+:)([^)#]*)[^)]*\)")  # to a file beside the page


def test_only_public_names_are_listed():
    assert dir(mlless) == sorted(mlless.__all__)
    assert all(getattr(mlless, name) for name in dir(mlless))


@pytest.mark.parametrize(
    "table", [pandas.DataFrame({"user": [1], "item": [2]}), np.ones((2, 2)), {"user": [1]}, 7]
)
def test_who_gives_a_table_for_a_path_is_told_what_takes_tables(table: object, tmp_path: Path) -> None:
    write_ratings(tmp_path / "r.csv", users=9, items=9, rows=50)
    data = mlless.partition(tmp_path / "r.csv", tmp_path / "data")
    model = mlless.train(data, model="mf", out=tmp_path / "run", epochs=1, workers=1, verbose=False).model()
    for use in (
        lambda: mlless.partition(table, tmp_path / "x"),
        lambda: mlless.partition([table], tmp_path / "x"),
        lambda: mlless.train(table, out=tmp_path / "x"),
        lambda: mlless.evaluate(tmp_path / "run", table),
        lambda: mlless.load(table),
        lambda: model.predict(table),
        lambda: model.evaluate(table),
        lambda: model.evaluate_raw(table),
    ):
        with pytest.raises(
            UsageError, match=r"neither a path nor a URL: found a .* Give the path .*MatrixFact"
        ):
            use()
    assert not (tmp_path / "x").exists()
    assert model.evaluate(data.location) == model.evaluate(data)


def test_an_option_that_there_is_not_is_a_near_miss(tmp_path: Path) -> None:
    with pytest.raises(
        TypeError, match=r"partition\(\) has no argument validaton: did you mean validation\?"
    ):
        mlless.partition("r.csv", tmp_path / "x", validaton=0.2)
    with pytest.raises(TypeError, match="did you mean separator"):
        mlless.partition("r.csv", tmp_path / "x", seperator=",")
    with pytest.raises(TypeError, match=r"evaluate\(\) has no argument lables: did you mean labels"):
        mlless.evaluate("run", "data", lables="no,yes")
    with pytest.raises(TypeError, match=r"there are source, format, user_column"):
        mlless.Predictor.predict(None, "r.csv", xyz=1)


def test_a_warning_is_at_the_line_of_who_called(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("age,clicked\n" + "31,0\n32,1\n" * 20)
    with pytest.warns(UserWarning, match=r"columns\.toml \(columns= in Python\)") as told:
        mlless.partition(tmp_path / "c.csv", tmp_path / "data")
    with pytest.warns(UserWarning, match="one worker publishes nothing") as more:
        mlless.train(
            tmp_path / "data", out=tmp_path / "run", epochs=1, workers=1, significance=0.5, verbose=False
        )
    assert {one.filename for one in (*told, *more)} == {__file__}


def test_the_version_is_written_once():
    one = re.compile(rf"(?<![\d.]){re.escape(mlless.__version__)}(?![\d.])")
    for name in ("pyproject.toml", "setup.py", "CITATION.cff", "README.md", "SECURITY.md"):
        assert not one.search((ROOT / name).read_text()), name
    latest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert latest
    assert latest[1] == mlless.__version__


def test_every_extra_that_an_error_names_is_there() -> None:
    sources = [path.read_text() for path in Path(mlless.__file__).parent.rglob("*.py")]
    named = {found for text in sources for found in re.findall(r'\bextra="(\w+)"', text)}
    trackers = {tool: getattr(tracking, tool).extra for tool in ("MLflow", "TensorBoard", "WandB")}
    assert {"report", "rabbitmq", "sklearn"} <= named
    assert named | {*trackers.values()} <= {*PROJECT["project"]["optional-dependencies"]}


def test_every_python_is_named_wherever_one_is():
    prefix = "Programming Language :: Python :: "
    named = [c.removeprefix(prefix) for c in PROJECT["project"]["classifiers"] if c.startswith(prefix)]
    assert tuple(name for name in named if "." in name) == PYTHONS
    assert PROJECT["project"]["requires-python"] == f">={PYTHONS[0]}"
    workflow = (ROOT / ".github/workflows/ci.yml").read_text()
    listed = ", ".join(f'"{python}"' for python in PYTHONS)
    assert f"python: [{listed}]" in workflow
    ends = [f"cp{python.replace('.', '')}" for python in (PYTHONS[0], PYTHONS[-1])]
    free = f"{ends[-1]}t"  # the newest one without a lock, which has no stable ABI
    assert PROJECT["tool"]["cibuildwheel"]["build"] == [f"{end}-*" for end in (*ends, free)]
    assert f'"py_limited_api": "{ends[0]}"' in (ROOT / "setup.py").read_text()


def test_an_index_gets_all_documents_and_a_page_without_dead_links(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for path in ROOT.iterdir():
        if path.is_dir() and path.name not in MADE and not path.name.endswith("_cache"):
            shutil.copytree(
                path, tree / path.name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
            )
        elif path.is_file():
            tree.mkdir(exist_ok=True)
            shutil.copy(path, tree)
    make = "from setuptools import build_meta; build_meta.build_sdist('made')"
    done = subprocess.run([sys.executable, "-c", make], cwd=tree, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    top = f"mlless-{mlless.__version__}/"
    with tarfile.open(tree / "made" / f"mlless-{mlless.__version__}.tar.gz") as archive:
        names = {name.removeprefix(top) for name in archive.getnames()}
        about = message_from_bytes(archive.extractfile(f"{top}PKG-INFO").read())
    readme = (ROOT / "README.md").read_text()
    linked = {link.rstrip("/") for link in LINK.findall(readme)}
    wanted = {"CITATION.cff", "LICENSE", "SECURITY.md", "docs/start.md", "requirements.lock"}
    assert wanted | linked | {"tests/installed.py", "tests/unit/test_package.py"} <= names
    assert not [name for name in names if name.endswith((".so", ".pyc"))]
    page = about.get_payload(decode=True).decode()
    assert readme.splitlines()[0] in page
    assert "`docs/start.md`: start in five minutes" in page
    assert not LINK.search(page)
    assert about["Description-Content-Type"] == "text/markdown"
    assert about["Author"] == about["Maintainer"] == "The MLLess project"
    licence = PROJECT["project"]["license"]
    assert about["License-Expression"] == licence == "Apache-2.0"
    assert f"\nlicense: {licence}\n" in (ROOT / "CITATION.cff").read_text()
    assert re.search(r"Apache License\s+Version 2\.0", (ROOT / "LICENSE").read_text())
