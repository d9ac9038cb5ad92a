"""The package as a user meets it: its public names, and no others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas
import pytest

import mlless
from mlless.data.synthetic import write_ratings
from mlless.errors import UsageError


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
