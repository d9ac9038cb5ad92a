"""Where a data set goes that is put object by object: what is left there in the end."""

from __future__ import annotations

import json

import pytest

from mlless.data.destination import Upload
from mlless.data.manifest import MANIFEST
from mlless.data.memory import MemoryObjects
from mlless.errors import MissingObject


@pytest.mark.parametrize("version", [1, 2, 3])
def test_the_files_of_a_data_set_of_any_version_are_replaced(version: int) -> None:
    objects = MemoryObjects()
    named = {"train": [{"path": "train/0-old", "rows": 1}, {"path": "train/1-same"}], "validation": []}
    more = {"ids": {"path": "ids-old"}, "made": {"source": "r.csv"}}
    objects.put(MANIFEST, json.dumps({"format": version, **named, **more}).encode())
    for path in ("train/0-old", "train/1-same", "ids-old", "notes.txt"):
        objects.put(path, b"old")
    with Upload(objects, "s3://bucket/data") as upload:
        upload.put("train/1-same", b"new")
        upload.put(MANIFEST, b"{}")
    assert objects.get("train/1-same") == b"new"
    assert objects.get("notes.txt") == b"old"
    for path in ("train/0-old", "ids-old"):
        with pytest.raises(MissingObject):
            objects.get(path)
