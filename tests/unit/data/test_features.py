"""From raw columns to features: where they are, how they are scaled, and what a data set keeps of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from mlless.artifact import Description
from mlless.data.dataset import Dataset, open_dataset
from mlless.data.features import ABSENT, CRITEO, FeatureMap, Layout, RatingsLayout, Scale
from mlless.data.layout_files import read_layout
from mlless.data.manifest import Clicks, File
from mlless.data.partition import partition
from mlless.data.rows import ColumnRows
from mlless.data.synthetic import write_clicks, write_ratings
from mlless.errors import DatasetError, InputError, UsageError

Write = Callable[[str, str | bytes], Path]
ClicksIn = Callable[[Dataset, tuple[File, ...]], list[tuple[int, int, tuple[tuple[int, float], ...]]]]

TOML = 'label = "y"\nnumeric = ["a", "b"]\ncategorical = ["c", "d"]\n'


def rows_of(numeric: list[list[float]], categories: list[list[int]]) -> ColumnRows:
    n = len(numeric)
    return ColumnRows(
        np.arange(n, dtype=np.uint8) % 2,
        np.arange(n, dtype=np.int64),
        np.array(numeric, np.float32).reshape(n, -1),
        np.array(categories, np.uint32).reshape(n, -1),
    )


def entries(features: FeatureMap, rows: ColumnRows) -> list[dict[int, float]]:
    encoded = features.encode(rows)
    bounds = zip(encoded.starts[:-1], encoded.starts[1:], strict=True)
    pairs = [
        list(zip(encoded.indices[a:b].tolist(), encoded.values[a:b].tolist(), strict=True)) for a, b in bounds
    ]
    assert all(len(dict(row)) == len(row) for row in pairs)  # each feature once
    return [dict(row) for row in pairs]


def test_where_features_are() -> None:
    nan = math.nan
    scales = (Scale(1.0, 2.0), Scale())
    features = FeatureMap(1, Layout("y", ("a", "b"), ("c", "d", "e")), 100, 0, "minmax", scales)
    rows = rows_of([[5, 7], [nan, -3], [1, nan]], [[0, 99, 0], [ABSENT, 5, ABSENT], [8, 8, 8]])
    assert entries(features, rows) == [
        {0: 2.0, 1: 7.0, 4: 2.0, 103: 1.0},
        {2: 1.0, 1: -3.0, 9: 1.0},
        {0: 0.0, 3: 1.0, 12: 3.0},
    ]
    assert features.features == 104


def test_numbers_are_scaled_on_a_logarithmic_scale() -> None:
    features = FeatureMap(1, Layout("y", ("a",)), 10, 0, "standard", (Scale(0.5, 2.0),))
    got = entries(features, rows_of([[0], [3], [-3]], [[], [], []]))
    expected = [-0.25, (math.log(4) - 0.5) / 2, (-math.log(4) - 0.5) / 2]
    assert [row[0] for row in got] == pytest.approx(expected, rel=1e-6)


def test_no_rows_have_no_features() -> None:
    features = FeatureMap(1, CRITEO, 10, 0, "standard", (Scale(),) * 13)
    empty = ColumnRows(
        np.zeros(0, np.uint8),
        np.zeros(0, np.int64),
        np.zeros((0, 13), np.float32),
        np.zeros((0, 26), np.uint32),
    )
    assert len(features.encode(empty)) == 0


@pytest.fixture
def table(write: Write) -> Path:
    random = np.random.default_rng(5)
    lines = ["y,a,b,c,d"]
    for n in range(500):
        a = "" if n % 5 == 0 else int(random.lognormal(3, 1))
        lines.append(f"{n % 3 == 0:d},{a},{random.normal():.4f},{random.choice(['x', 'y', ''])},{n % 17}")
    return write("clicks.csv", "\n".join(lines))


@pytest.mark.parametrize("scaling", ["standard", "minmax"])
def test_scales_are_those_of_the_training_part_alone(
    table: Path, write: Write, tmp_path: Path, clicks_in: ClicksIn, scaling: str
) -> None:
    columns = write("columns.toml", TOML)
    data = partition(table, tmp_path / "d", columns=columns, features=64, numeric=scaling, validation=0.3)  # type: ignore[arg-type]
    shape = data.manifest.shape
    assert isinstance(shape, Clicks)
    assert shape.columns is not None
    assert shape.features == 68
    held_out = {row for row, _, _ in clicks_in(data, data.manifest.validation)}
    assert len(held_out) == 150
    raw = [line.split(",") for line in table.read_text().splitlines()[1:]]
    for place, scale in enumerate(shape.columns.scales):
        numbers = np.array(
            [float(row[1 + place]) for n, row in enumerate(raw) if n not in held_out and row[1 + place]]
        )
        if scaling == "standard":
            logs = np.sign(numbers) * np.log1p(np.abs(numbers))
            expected = logs.mean(), logs.std()
        else:
            expected = numbers.min(), numbers.max() - numbers.min()
        assert (scale.shift, scale.spread) == pytest.approx(expected, rel=1e-5)
    trained = [dict(row) for _, _, row in clicks_in(data, data.manifest.train)]
    first = np.array([row[0] for row in trained if 0 in row])
    if scaling == "standard":
        assert abs(first.mean()) < 1e-5
        assert first.std() == pytest.approx(1, rel=1e-5)
    else:
        assert (first.min(), first.max()) == (0, 1)
    assert sum(2 in row for row in trained) == len(trained) - len(first)


def test_a_test_set_has_the_features_of_the_training_set(
    table: Path, write: Write, tmp_path: Path, clicks_in: ClicksIn
) -> None:
    columns = write("columns.toml", TOML)
    data = partition(table, tmp_path / "d", columns=columns, features=64, hash_seed=3, validation=0)
    few = write("few.csv", "".join(line + "\n" for line in table.read_text().splitlines()[:21]))
    test = partition(few, tmp_path / "t", like=tmp_path / "d")
    assert isinstance(data.manifest.shape, Clicks)
    assert isinstance(test.manifest.shape, Clicks)
    assert test.manifest.shape.columns == data.manifest.shape.columns
    assert test.manifest.made.format == "columns"
    by_row = {row: (label, dict(features)) for row, label, features in clicks_in(data, data.manifest.train)}
    for row, label, features in clicks_in(test, test.manifest.train):
        assert by_row[row] == (label, dict(features))
    for options in ({"features": 9}, {"numeric": "minmax"}, {"columns": columns}, {"hash_seed": 1}):
        with pytest.raises(UsageError, match="come from the data set of `like`"):
            partition(few, tmp_path / "x", like=tmp_path / "d", format="columns", **options)  # type: ignore[arg-type]


def test_the_same_source_and_seeds_give_the_same_bytes(
    table: Path, write: Write, tmp_path: Path, everything: Callable[[Path], dict[str, bytes]]
) -> None:
    columns = write("columns.toml", TOML)
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        partition(table, tmp_path / name, columns=columns, features=64, hash_seed=seed)
    a, b, c = (everything(tmp_path / name) for name in ("a", "b", "c"))
    assert a == b != c


def test_columns_without_numbers_or_without_variety(
    write: Write, tmp_path: Path, clicks_in: ClicksIn
) -> None:
    source = write("c.csv", "y,a,b,c,d\n" + "1,7,,x,\n0,7,,x,\n" * 15)
    data = partition(source, tmp_path / "d", columns=Layout("y", ("a", "b")), features=1)
    assert isinstance(data.manifest.shape, Clicks)
    assert data.manifest.shape.columns is not None
    assert data.manifest.shape.columns.scales == (Scale(pytest.approx(math.log(8)), 1.0), Scale())
    assert {row for _, _, row in clicks_in(data, data.manifest.train)} == {((0, 0.0), (3, 1.0))}
    partition(source, tmp_path / "e", columns=Layout("y", (), ("c",)), features=1)


def test_requests_that_do_not_go_together(table: Path, write: Write, tmp_path: Path) -> None:
    columns = write("columns.toml", TOML)
    write_ratings(tmp_path / "r.csv", users=5, items=5, rows=20)
    write_clicks(tmp_path / "c.svm", rows=200, features=9, per_row=3)
    partition(tmp_path / "r.csv", tmp_path / "ratings")
    partition(tmp_path / "c.svm", tmp_path / "svm")
    for options, says in (
        ({"columns": columns, "format": "criteo"}, "says what the columns are"),
        ({"columns": columns, "format": "ratings"}, "for tables of clicks"),
        ({"columns": columns, "features": 0}, "1 to 2147483648"),
        ({"columns": columns, "numeric": "log"}, "standard or minmax"),
        ({"columns": columns, "hash_seed": -1}, "hash seed"),
        ({"columns": columns, "like": tmp_path / "ratings"}, "of the other kind"),
        ({"columns": columns, "like": tmp_path / "svm"}, "was not made of columns"),
        ({"columns": tmp_path / "none.toml"}, "No such file"),
    ):
        with pytest.raises(UsageError, match=says):
            partition(table, tmp_path / "x", **options)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="what the columns are is not known"):
        partition(write("bare.csv", "a,b\n1,2\n3,4\n"), tmp_path / "x", format="columns")
    assert not (tmp_path / "x").exists()


def test_columns_that_are_not_described_are_guessed_and_told(table: Path, tmp_path: Path) -> None:
    told: list[str] = []
    guessed = partition(table, tmp_path / "guessed", tell=told.append)
    (text,) = told
    (tmp_path / "columns.toml").write_text(text.partition("\n")[2])
    with pytest.warns(UserWarning, match="is taken for a table of clicks"):
        partition(table, tmp_path / "warned")
    pinned = partition(table, tmp_path / "pinned", columns=tmp_path / "columns.toml", tell=told.append)
    assert len(told) == 1
    assert guessed.manifest == pinned.manifest


def test_labels_that_were_told_are_part_of_what_is_kept(write: Write, tmp_path: Path) -> None:
    path = write("c.csv", "age,bought\n" + "".join(f"{n},{'no' if n % 3 else 'yes'}\n" for n in range(90)))
    data = partition(path, tmp_path / "a", labels=("no", "yes"), tell=lambda text: None)
    shape = data.manifest.shape
    assert isinstance(shape, Clicks)
    assert shape.columns is not None
    assert shape.columns.layout.labels == ("no", "yes")
    assert shape.positives == pytest.approx(1 / 3, abs=0.05)
    again = partition(path, tmp_path / "b", like=tmp_path / "a")
    assert again.manifest.rows == 90


def test_what_is_told_of_guessed_columns_works_by_itself(write: Write, tmp_path: Path) -> None:
    rows = "".join(f"{n},{n % 7 + 1},{'no' if n % 3 else 'yes'}\n" for n in range(90))
    path, told = write("c.csv", ",age,bought\n" + rows), list[str]()
    guessed = partition(path, tmp_path / "a", labels="no,yes", tell=told.append)
    (text,) = told
    assert "first column has no name and counts the rows: it is left out." in text
    columns = write("columns.toml", text.partition("\n")[2])
    assert partition(path, tmp_path / "b", columns=columns).manifest == guessed.manifest
    assert read_layout(columns) == Layout("bought", ("age",), labels=("no", "yes"))


def test_labels_of_unknown_meaning_are_asked_for_before_anything_is_told(
    write: Write, tmp_path: Path
) -> None:
    path = write("c.csv", "age,clicked\n" + "31,no\n32,yes\n" * 9)
    with pytest.raises(InputError, match=r"labels, in column clicked, .*found no and yes.*`labels` no,yes"):
        partition(path, tmp_path / "a", tell=lambda text: pytest.fail(text))


@pytest.mark.parametrize("found", [("no", "yes"), ("0", "1")])
def test_labels_that_are_not_those_of_the_column_are_named(
    write: Write, tmp_path: Path, found: tuple[str, str]
) -> None:
    path = write("c.csv", "age,clicked\n" + "31,{}\n32,{}\n".format(*found) * 9)
    says = (
        r"column clicked, are not those of `labels`: expected nein and ja, found {} and {}\. .*`labels` {},{}"
    )
    with pytest.raises(InputError, match=says.format(*found, *found)):
        partition(path, tmp_path / "a", labels="nein,ja", tell=lambda text: pytest.fail(text))


def test_a_column_without_a_name_is_named_in_words(write: Write, tmp_path: Path) -> None:
    path = write("c.csv", "age,clicked\n31,0\n32,1\n")
    with pytest.raises(
        InputError, match=r"one each of clicked, one without a name.* See to one without a name$"
    ):
        partition(path, tmp_path / "a", columns=Layout("clicked", ("",)))


def test_weak_guesses_are_asked_about(write: Write, tmp_path: Path) -> None:
    path = write("sessions.dat", "".join(f"{n}::1396{n:06}::{n % 50}::0\n" for n in range(60)))
    with pytest.raises(UsageError, match=r"perhaps not ratings: .*no time.*`format` ratings"):
        partition(path, tmp_path / "x")
    assert partition(path, tmp_path / "x", format="ratings").manifest.kind == "ratings"
    options = {"user_column": 1, "item_column": 3, "rating_column": 4}
    assert partition(path, tmp_path / "y", **options).manifest.rows == 60  # type: ignore[arg-type]
    described = write("columns.toml", "user = 1\nitem = 3\nrating = 4\n")
    assert partition(path, tmp_path / "z", columns=described).manifest.ids
    with pytest.raises(UsageError, match="Give only one of them"):
        partition(path, tmp_path / "w", columns=described, user_column=1)


SEPARATED = "y{0}a{0}c\n" + "1{0}2{0}x\n0{0}3{0}y\n" * 10


def separator_of(data: Dataset) -> str:
    assert isinstance(data.manifest.shape, Clicks)
    assert data.manifest.shape.columns is not None
    return data.manifest.shape.columns.layout.separator


@pytest.mark.parametrize(("separator", "said"), [(";", {}), ("\t", {}), ("^", {"separator": "^"})])
def test_another_separator_than_before_is_found_or_said(
    write: Write, tmp_path: Path, clicks_in: ClicksIn, separator: str, said: dict[str, str]
) -> None:
    layout = Layout("y", ("a",), ("c",))
    before = partition(write("c.csv", SEPARATED.format(",")), tmp_path / "a", columns=layout)
    path = write("d.csv", SEPARATED.format(separator))
    like = partition(path, tmp_path / "b", like=tmp_path / "a", **said)  # type: ignore[arg-type]
    described = partition(path, tmp_path / "c", columns=layout, **said)  # type: ignore[arg-type]
    rows = sorted(clicks_in(before, before.manifest.train + before.manifest.validation))
    assert sorted(clicks_in(like, like.manifest.train)) == rows
    assert separator_of(like) == ","
    assert separator_of(described) == said.get("separator", ",")
    assert described.manifest.rows == len(rows)


def test_a_separator_that_is_said_goes_before_all_others(write: Write, tmp_path: Path) -> None:
    path = write("c.csv", "1;2,5;3\n0;3,5;4\n" * 10)
    layout = Layout("y", ("a",), names=("y", "a", "b"))
    with pytest.raises(InputError, match="3 columns separated by ','"):
        partition(path, tmp_path / "a", columns=layout)
    assert partition(path, tmp_path / "a", columns=layout, separator=";").manifest.rows == 20
    assert partition(path, tmp_path / "b", like=tmp_path / "a").manifest.rows == 20
    ratings = RatingsLayout(1, 3, 2, separator=",")
    assert partition(path, tmp_path / "c", columns=ratings, separator=";").manifest.kind == "ratings"
    with pytest.raises(UsageError, match="no such separator"):
        partition(path, tmp_path / "d", columns=layout, separator="ab")


def test_the_separator_of_a_description_stays_where_it_separates(write: Write, tmp_path: Path) -> None:
    path = write("c.csv", "y|a,b,d\n" + "1|2,5,6\n0|3,5,7\n" * 10)
    layout = Layout("y", categorical=("a,b,d",), separator="|")
    assert partition(path, tmp_path / "a", columns=layout).manifest.rows == 20


@pytest.mark.parametrize("low", [0, -1])
def test_ratings_of_two_numbers_may_be_clicks(write: Write, tmp_path: Path, low: int) -> None:
    path = write("r.csv", "user,item,rating\n" + "".join(f"{n},{n},{n % 2 or low}\n" for n in range(50)))
    with pytest.raises(UsageError, match=f"perhaps not ratings: .*found {low} and 1"):
        partition(path, tmp_path / "x")
    assert partition(path, tmp_path / "x", format="ratings").manifest.rows == 50
    assert partition(path, tmp_path / "y", like=tmp_path / "x").manifest.rows == 50
    more = write("r.csv", path.read_text() + "1,1,0.5\n")
    assert partition(more, tmp_path / "z").manifest.rows == 51


def test_rows_without_a_label_are_counted(write: Write, tmp_path: Path) -> None:
    path = write("c.csv", "y,a\n" + "1,2\n0,3\n,4\n" * 10)
    data = partition(path, tmp_path / "d", columns=Layout("y", ("a",)), drop_unlabelled=True)
    assert (data.manifest.rows, data.manifest.made.unlabelled, data.manifest.made.skipped) == (20, 10, 0)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("label = ", "Invalid value"),
        ('numeric = ["a"]', "label"),
        ('label = "y"\nnumerics = ["a"]', "numerics"),
        ('label = "y"', "no columns to learn from"),
        ('label = "y"\nnumeric = ["y"]', "named twice: found y"),
        ('label = "y"\nnumeric = ["a"]\nseparator = "::"', "one character"),
        ('label = "y"\nnumeric = ["a"]\nnames = ["y", "b"]', "not among the names: found a"),
        ('label = "y"\nnumeric = ["a"]\nnames = ["y", "a", "b", "b"]', "named twice: found b"),
        (b"\xff", "utf-8"),
    ],
)
def test_a_wrong_description_is_refused(write: Write, text: str | bytes, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        read_layout(write("columns.toml", text))


def test_a_description_in_full(write: Write) -> None:
    text = 'label = "y"\nnumeric = ["a"]\ncategorical = ["c"]\nseparator = ";"\nnames = ["c", "y", "a"]\n'
    assert read_layout(write("c.toml", text)) == Layout("y", ("a",), ("c",), ";", ("c", "y", "a"))


def test_what_was_made_before_there_were_columns_is_as_it_was(tmp_path: Path) -> None:
    """Without columns neither the manifest nor a model's description says anything of them."""
    assert b"columns" not in msgspec.json.encode(Clicks(9, 0, 0.5))
    model = b'{"kind":"lr","features":9,"l2":0.1,"intercept":0.0}'
    old = b'{"format":1,"version":"0","model":' + model + b',"trained_on":"0","seed":0}'
    description = msgspec.json.decode(old, type=Description)
    assert description.columns is None
    assert msgspec.json.encode(description) == old


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"version": 1', '"version": 2'),
        ('"hashed": 64', '"hashed": 65'),
        ('"hashed": 64', '"hashed": 0'),
        ('"seed": 3', '"seed": -3'),
        ('"spread": 1.0', '"spread": 0.0'),
        ('"numeric": [\n', '"numeric": ["e",\n'),
    ],
)
def test_a_definition_that_does_not_hold_is_refused(write: Write, tmp_path: Path, old: str, new: str) -> None:
    source = write("c.csv", "y,a,b,c,d\n" + "1,7,,x,\n0,7,,x,\n" * 15)
    data = partition(source, tmp_path / "d", columns=write("c.toml", TOML), features=64, hash_seed=3)
    assert isinstance(data.manifest.shape, Clicks)
    manifest = tmp_path / "d" / "manifest.json"
    text = manifest.read_text()
    assert old in text
    manifest.write_text(text.replace(old, new))
    with pytest.raises(DatasetError, match="not a valid manifest"):
        open_dataset(tmp_path / "d")


TOLD = 'label = "y"\nnumeric = ["a"]\nlabels = ["no", "yes"]\nmissing = ["?"]\n'


def test_a_description_may_name_labels_missing_values_and_columns_of_ratings(write: Write) -> None:
    clicks = read_layout(write("c.toml", TOLD))
    assert clicks == Layout("y", ("a",), labels=("no", "yes"), missing=("?",))
    ratings = read_layout(write("r.toml", 'user = "who"\nitem = 2\nseparator = ";"\n'))
    assert ratings == RatingsLayout("who", 2, separator=";")
    for text, says in (
        ('user = "who"', "item"),
        ('item = 1\nuser = 2\nlabel = "y"', "label"),
        ('label = "y"\nnumeric = ["a"]\nlabels = ["no"]', "Expected `array` of length 2"),
        ('label = "y"\nnumeric = ["a"]\nlabels = ["no", "no"]', "labels that do not differ"),
    ):
        with pytest.raises(UsageError, match=says):
            read_layout(write("bad.toml", text))
