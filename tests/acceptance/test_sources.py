"""Raw rows as a shell brings them: patterns, several files, pipes, folders of parts."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest


@pytest.fixture
def parts(ratings, tmp_path: Path) -> Path:
    """The ratings in three parts, each with the header, in a folder as Spark writes it."""
    header, *lines = ratings.raw.read_text().splitlines(keepends=True)
    folder = tmp_path / "exported"
    folder.mkdir()
    (folder / "_SUCCESS").touch()
    for number in range(3):
        text = header + "".join(lines[number * len(lines) // 3 : (number + 1) * len(lines) // 3])
        (folder / f"part-{number}.csv.gz").write_bytes(gzip.compress(text.encode()))
    return folder


def files(folder: Path) -> set[str]:
    """Return the names of all files of groups, which carry their checksums."""
    return {path.name for path in folder.rglob("*/*.safetensors")}


def test_however_the_rows_come_they_make_the_same_data_set(
    mlless, ratings, parts: Path, tmp_path: Path
) -> None:
    mlless("partition", ratings.raw, tmp_path / "whole")
    mlless("partition", *sorted(parts.glob("*.gz")), tmp_path / "named")
    mlless("partition", parts / "part-*", tmp_path / "pattern")  # in quotes: no shell expands it
    mlless("partition", f"{parts}/", tmp_path / "folder")
    with ratings.raw.open() as stdin:
        mlless("partition", "-", tmp_path / "piped", stdin=stdin)
    for name in ("named", "pattern", "folder", "piped"):
        assert files(tmp_path / name) == files(tmp_path / "whole") != set()


def test_predictions_and_scores_for_rows_from_anywhere(mlless, ratings, parts: Path) -> None:
    whole = mlless("predict", ratings.run, ratings.raw).stdout
    assert mlless("predict", ratings.run, parts).stdout == whole
    assert mlless("predict", ratings.run, *sorted(parts.glob("*.gz"))).stdout == whole
    with ratings.raw.open() as stdin:
        assert mlless("predict", ratings.run, "-", stdin=stdin).stdout == whole
    score = mlless("evaluate", ratings.run, ratings.raw, "--json").stdout
    assert mlless("evaluate", ratings.run, f"{parts}/part-?.csv.gz", "--json").stdout == score
    with ratings.raw.open() as stdin:
        assert mlless("evaluate", ratings.run, "-", "--json", stdin=stdin).stdout == score


def test_an_error_names_the_part_and_its_line(mlless, parts: Path, tmp_path: Path) -> None:
    text = gzip.decompress((parts / "part-1.csv.gz").read_bytes()) + b"1,2,many\n"
    (parts / "part-1.csv.gz").write_bytes(gzip.compress(text))
    said = mlless("partition", parts, tmp_path / "d", code=3).stderr
    assert f"part-1.csv.gz, line {text.count(10)}" in said
    assert not (tmp_path / "d").exists()


def test_parts_of_several_tables_are_told_apart(mlless, parts: Path, tmp_path: Path) -> None:
    (parts / "tags.csv").write_text("userId,movieId,tag,timestamp\n1,2,fun,3\n")
    said = mlless("partition", parts, tmp_path / "d", code=3).stderr
    assert "tags.csv: parts with other columns" in said
    assert "part-0.csv.gz" in said
