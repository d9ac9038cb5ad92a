"""Tables of clicks and generated data, from the command line."""

from __future__ import annotations

import csv
import json

import pytest
from publisher import publisher


@pytest.fixture(scope="module")
def criteo(mlless, tmp_path_factory):
    """A folder with made-up rows of Criteo's layout, a data set of them and a run."""
    folder = tmp_path_factory.mktemp("criteo")
    made = json.loads(
        mlless("synthesize", "criteo", folder / "rows.tsv.gz", "--rows", 6_000, "--json").stdout
    )
    assert made["rows"] == 6_000
    told = mlless("partition", folder / "rows.tsv.gz", folder / "data", "--features", 4096)
    assert "13 numeric columns (standard), 26 hashed into 4,096 features" in told.stdout
    mlless("train", folder / "data", "--workers", 2, "--epochs", 2, "--out", folder / "run")
    return folder


def test_a_model_scores_raw_rows_as_it_does_partitioned_ones(mlless, criteo):
    raw = json.loads(mlless("evaluate", criteo / "run", criteo / "rows.tsv.gz", "--json").stdout)
    cut = json.loads(mlless("evaluate", criteo / "run", criteo / "data", "--part", "all", "--json").stdout)
    assert (raw.pop("skipped"), raw.pop("unlabelled")) == (0, 0)
    assert raw.keys() == cut.keys()
    for name in ("log_loss", "auc"):
        assert raw[name] == pytest.approx(cut[name], rel=1e-6)
    assert raw["rows"] == 6_000
    assert "6,000 rows: all of" in mlless("evaluate", criteo / "run", criteo / "rows.tsv.gz").stdout
    done = mlless("predict", criteo / "run", criteo / "rows.tsv.gz")
    rows = list(csv.DictReader(done.stdout.splitlines()))
    assert [int(row["row"]) for row in rows] == list(range(6_000))


def test_facts_of_a_data_set_with_columns(mlless, criteo, tmp_path):
    options = ("--like", criteo / "data", "--json")
    facts = json.loads(mlless("partition", criteo / "rows.tsv.gz", tmp_path / "test", *options).stdout)
    assert (facts["columns"], facts["hashed_into"], facts["scaling"]) == (39, 4096, "standard")
    assert facts["features"] == 4096 + 26


def test_malformed_rows_are_named_or_left_out(mlless, criteo, tmp_path):
    bad = tmp_path / "bad.tsv"
    good = "".join("\t".join([label, "5", *["2"] * 38]) + "\n" for label in "10")
    bad.write_text("\t".join(["0", "x", *[""] * 38]) + "\n" + good)
    said = mlless("evaluate", criteo / "run", bad, code=3).stderr
    assert (
        "bad.tsv, line 1: malformed line: expected a finite number or nothing in column I1, found 'x'" in said
    )
    done = mlless("evaluate", criteo / "run", bad, "--skip-malformed")
    assert "left out 1 malformed line" in done.stderr
    bad.write_text("\t".join(["0", "x", *[""] * 38]) + "\n")
    said = mlless("evaluate", criteo / "run", bad, "--skip-malformed", code=3).stderr
    assert "--skip-malformed would leave out 1 of 1 rows" in said


def test_what_does_not_fit_is_refused(mlless, criteo, clicks, ratings, tmp_path):
    rows = criteo / "rows.tsv.gz"
    for arguments, says in (
        (["evaluate", clicks.run, rows], "does not know what its features are made of"),
        (["evaluate", ratings.run, rows], "expected ratings, found clicks"),
        (["evaluate", criteo / "run", rows, "--part", "train"], "raw rows are not in parts"),
        (["predict", criteo / "run", ratings.raw, "--format", "ratings"], "expected clicks, found ratings"),
        (["synthesize", "criteo", rows, "--rows", "5"], "--overwrite"),
        (["partition", rows, tmp_path / "x", "--columns", tmp_path / "none.toml"], "none.toml"),
    ):
        said = mlless(*arguments, code=2).stderr
        assert says in said
        assert said.count("\n") == 1


def test_raw_ratings_are_evaluated_too(mlless, ratings):
    raw = json.loads(mlless("evaluate", ratings.run, ratings.raw, "--json").stdout)
    cut = json.loads(mlless("evaluate", ratings.run, ratings.dataset, "--part", "all", "--json").stdout)
    assert raw["rmse"] == pytest.approx(cut["rmse"], rel=1e-6)


def test_fetch_tells_terms_and_what_next(mlless, tmp_path, monkeypatch):
    with publisher() as published:
        monkeypatch.setenv("MLLESS_MOVIELENS_URL", published.url)
        published.publish("ml-1m", {"ml-1m/ratings.dat": b"1::2::3::4\n", "ml-1m/README": b"terms"})
        done = mlless("fetch", "ml-1m", tmp_path / "raw")
        assert "do not redistribute" in done.stderr
        assert "of the archive, as published" in done.stdout
        assert f"mlless partition {tmp_path}/raw/ratings.dat data/ml-1m" in done.stdout
        assert "404" in mlless("fetch", "ml-20m", tmp_path / "none", code=5).stderr
        published.files["/ml-1m.zip"] = b"something else"
        said = mlless("fetch", "ml-1m", tmp_path / "raw", "--overwrite", code=3).stderr
        assert "not the archive that was published" in said
        assert (tmp_path / "raw" / "ratings.dat").read_bytes() == b"1::2::3::4\n"
    assert "cannot be reached" in mlless("fetch", "ml-1m", tmp_path / "none", code=5).stderr


def test_a_table_that_does_not_speak_for_itself_is_asked_about(mlless, tmp_path):
    plays, data = tmp_path / "plays.csv", tmp_path / "data"
    plays.write_text("gameId,who,plays\n" + "".join(f"G{n % 7},u-{n % 5},{n}\n" for n in range(60)))
    said = mlless("partition", plays, data, code=3).stderr
    assert "--user-column NAME --rating-column NAME" in said
    options = ("--user-column", "who", "--rating-column", "3")
    assert "60 ratings of 5 users and 7 items" in mlless("partition", plays, data, *options).stdout
    mlless("train", data, "--workers", 1, "--epochs", 1, "--out", tmp_path / "run")
    done = mlless("predict", tmp_path / "run", plays, "--user-column", "who")
    rows = list(csv.DictReader(done.stdout.splitlines()))
    assert [(row["user"], row["item"]) for row in rows[:2]] == [("u-0", "G0"), ("u-1", "G1")]


def test_clicks_that_are_not_described_are_guessed_and_what_to_write_is_said(mlless, tmp_path):
    clicks, data = tmp_path / "clicks.csv", tmp_path / "data"
    lines = [f"{'yes' if n % 3 else 'no'},{n},s{n % 4}\n" for n in range(90)]
    clicks.write_text("bought,age,site\n" + "".join(lines) + ",5,s1\n")
    said = mlless("partition", clicks, data, "--labels", "no,yes", code=3).stderr
    assert "line 92: malformed line: expected a label of no or yes, found ''" in said
    assert "--drop-unlabelled" in said
    done = mlless("partition", clicks, data, "--labels", "no,yes", "--drop-unlabelled")
    assert 'label = "bought"\nnumeric = ["age"]\ncategorical = ["site"]' in done.stderr
    assert "1 row without a rating or label" in done.stdout
    mlless("train", data, "--workers", 1, "--epochs", 1, "--out", tmp_path / "run")
    done = mlless("evaluate", tmp_path / "run", clicks, "--drop-unlabelled")
    assert "90 rows" in done.stdout
    assert "left out 1 row without a rating or label" in done.stderr
    assert len(mlless("predict", tmp_path / "run", clicks).stdout.splitlines()) == 92


@pytest.mark.parametrize(("separator", "options"), [(";", ()), ("^", ("--separator", "^"))])
def test_a_model_scores_a_table_with_another_separator(mlless, tmp_path, separator, options):
    clicks, later = tmp_path / "clicks.csv", tmp_path / "later.csv"
    text = "clicked,age,site\n" + "".join(f"{n % 2},{n % 9},s{n % 4}\n" for n in range(90))
    clicks.write_text(text)
    later.write_text(text.replace(",", separator))
    mlless("partition", clicks, tmp_path / "data")
    mlless("train", tmp_path / "data", "--workers", 1, "--epochs", 1, "--out", tmp_path / "run")
    for command in (("predict",), ("evaluate", "--json")):
        first = mlless(*command, tmp_path / "run", clicks)
        assert mlless(*command, tmp_path / "run", later, *options).stdout == first.stdout
