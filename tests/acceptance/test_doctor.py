"""``mlless doctor``: a deployment that works, and many that do not."""

from __future__ import annotations

import json
import shutil

import pytest

DATASET = 4


def _findings(done):
    """Return outcome and text of each finding by its check, and the cures."""
    told = json.loads(done.stdout)
    return {one["check"]: one for one in told["findings"]}


@pytest.fixture
def channels(tmp_path, monkeypatch):
    """The folder in which embedded channels make theirs."""
    monkeypatch.setenv("MLLESS_CHANNEL_DIR", str(tmp_path))
    return tmp_path


def test_one_machine_is_well(mlless, ratings, channels):
    done = mlless("doctor", ratings.dataset, "--workers", 2)
    lines = done.stdout.splitlines()
    assert [line[:13].strip() for line in lines] == [
        f"✓ {check}"
        for check in (
            "store",
            "bus",
            "data set",
            "functions",
            "versions",
            "clocks",
            "from there",
            "from there",
        )
    ]
    assert "2 functions at once" in done.stdout
    assert list(channels.iterdir()) == []


def test_the_numbers_are_there_for_scripts(mlless, ratings, channels):
    done = mlless("doctor", ratings.dataset, "--workers", 2, "--json")
    assert json.loads(done.stdout)["ok"] is True
    found = _findings(done)
    assert found["store"]["facts"]["latency"] > 0
    functions = found["functions"]["facts"]["functions"]
    assert len(functions) == 2
    assert all(one["dataset"]["get"] > 0 and one["store"]["put"] > 0 for one in functions)
    assert abs(found["clocks"]["facts"]["skew"]) < 1 + found["clocks"]["facts"]["doubt"]


def test_a_data_set_that_is_not_there(mlless, tmp_path, channels):
    found = _findings(mlless("doctor", tmp_path / "none", "--workers", 1, "--json", code=DATASET))
    assert found["data set"]["outcome"] == "failed"
    assert "no such folder" in found["data set"]["text"]
    assert found["data set"]["cure"] == "make one with mlless partition SOURCE DEST"
    assert found["functions"]["outcome"] == "ok"


def test_a_damaged_mini_batch(mlless, ratings, tmp_path, channels):
    shutil.copytree(ratings.dataset, tmp_path / "data")
    (tmp_path / "data" / "train" / "000000.safetensors").write_bytes(b"nonsense")
    done = mlless("doctor", tmp_path / "data", "--workers", 1, code=DATASET)
    assert "✗ data set" in done.stdout
    assert "damaged file" in done.stdout


def test_a_place_for_channels_that_is_not_there(mlless, tmp_path, monkeypatch):
    monkeypatch.setenv("MLLESS_CHANNEL_DIR", str(tmp_path / "none"))
    done = mlless("doctor", code=5)
    assert "✗ store" in done.stdout
    assert "Set MLLESS_CHANNEL_DIR to a folder you can write to" in done.stdout
    assert "! functions" in done.stdout
