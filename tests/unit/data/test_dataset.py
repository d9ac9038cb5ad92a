"""Opening and reading a data set, whole or harmed."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import zlib
from pathlib import Path

import msgspec
import numpy as np
import pytest
import safetensors.numpy

from mlless.data.dataset import Dataset, open_dataset
from mlless.data.manifest import File
from mlless.data.partition import partition
from mlless.data.synthetic import write_clicks, write_ratings
from mlless.errors import DatasetError


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    write_ratings(tmp_path / "r.csv", users=20, items=30, rows=300)
    return partition(tmp_path / "r.csv", tmp_path / "data")


def test_opening_gives_what_partition_returned(dataset: Dataset) -> None:
    again = open_dataset(dataset.location)
    assert again.manifest == dataset.manifest
    assert again.location == dataset.location


def test_what_is_no_data_set_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for name, message in {"none": "no such folder", "file": "not a folder", ".": "not a data set"}.items():
        with pytest.raises(DatasetError, match=f"{message}.*mlless partition"):
            open_dataset(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "not a valid manifest"),
        (b"\x00\xff", "not a valid manifest"),
        (b'{"name": "my app"}', "not a valid manifest"),
        (b'{"format": 2}', "not a valid manifest"),
    ],
)
def test_a_wrong_manifest_is_an_error(tmp_path: Path, text: bytes, message: str) -> None:
    (tmp_path / "manifest.json").write_bytes(text)
    with pytest.raises(DatasetError, match=message) as caught:
        open_dataset(tmp_path)
    assert "manifest.json" in str(caught.value)
    assert "Partition the source again" in str(caught.value)


def test_a_data_set_of_an_older_version_tells_the_command_that_makes_it_anew(tmp_path: Path) -> None:
    folder = tmp_path / "my data"
    folder.mkdir()
    made = {"source": "ratings.csv", "format": "ratings", "seed": 3, "validation": 0.2, "batch_size": 240}
    more = {"version": "0.1.0", "source_bytes": 9, "like": None, "skipped": 2, "unlabelled": 1}
    (folder / "manifest.json").write_bytes(msgspec.json.encode({"format": 1, "made": made | more}))
    with pytest.raises(DatasetError, match="another version: expected format 2, found format 1") as caught:
        open_dataset(folder)
    command = (
        f"mlless partition ratings.csv '{folder}' --format ratings --seed 3 --validation 0.2 "
        "--skip-malformed --drop-unlabelled --overwrite"
    )
    assert str(caught.value).endswith(command)


def test_a_data_set_of_a_newer_version_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_bytes(b'{"format": 3}')
    with pytest.raises(DatasetError, match="another version: expected format 2, found format 3"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("harm", [lambda data: data[:-1], lambda data: data + b"x", lambda data: b"", None])
def test_a_harmed_file_is_an_error(dataset: Dataset, harm: object) -> None:
    file, ids = dataset.manifest.train[0], dataset.manifest.ids
    assert ids
    for harmed, use in ((file, lambda: dataset.read(file)), (ids, dataset.ids)):
        path = Path(dataset.location) / harmed.path
        data = path.read_bytes()
        middle = len(data) // 2
        flipped = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        path.write_bytes(harm(data) if callable(harm) else flipped)
        with pytest.raises(DatasetError, match="damaged file") as caught:
            use()
        assert str(path) in str(caught.value)


def test_a_missing_file_is_an_error(dataset: Dataset) -> None:
    file = next(file for file in dataset.manifest.validation if file.rows)
    (Path(dataset.location) / file.path).unlink()
    with pytest.raises(DatasetError, match=f"{file.path}: a file of the data set is missing. Partition"):
        dataset.read(file)


@pytest.mark.parametrize("data", [b"", b"no safetensors", safetensors.numpy.save({"x": np.zeros(1)})])
def test_a_file_of_something_else_is_an_error(dataset: Dataset, data: bytes) -> None:
    file = File(path="other", rows=1, bytes=len(data), crc32=zlib.crc32(data))
    dataset.objects.put("other", data)
    with pytest.raises(DatasetError, match="other: not the rows of a group"):
        dataset.read(file)
    with pytest.raises(DatasetError, match="other: not a file of ids"):
        dataclasses.replace(dataset, manifest=msgspec.structs.replace(dataset.manifest, ids=file)).ids()


def test_clicks_have_no_ids(tmp_path: Path) -> None:
    write_clicks(tmp_path / "c.svm", rows=100, features=50, per_row=5)
    with pytest.raises(DatasetError, match="expected ratings, found clicks"):
        partition(tmp_path / "c.svm", tmp_path / "data").ids()


def test_importing_it_is_light() -> None:
    heavy = "{'pyarrow', 'pandas', 'scipy', 'sklearn'}"
    code = f"import sys, mlless.data.dataset; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
