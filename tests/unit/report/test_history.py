from __future__ import annotations

import json

import msgspec
import pytest

from mlless.locations import Directory
from mlless.records import StepRecord
from mlless.report.history import HISTORY, SUMMARY, HistoryFile, Totals, read_summary, write_summary


def test_history_is_one_object_a_step(tmp_path, step):
    records = [step(0, heldout={"rmse": 1.0}), step(1, loss=None)]
    with HistoryFile(Directory(tmp_path)) as history:
        for record in records:
            history.add(record)
    lines = (tmp_path / HISTORY).read_bytes().splitlines()
    assert [msgspec.json.decode(line, type=StepRecord) for line in lines] == records


def test_totals(step):
    totals = Totals()
    for number in range(3):
        totals.add(step(number))
    assert (totals.bytes_out, totals.bytes_in, totals.bytes_fetched, totals.entries) == (300, 270, 150, 21)
    assert totals.times().compute == pytest.approx(1.2)


def test_summary_comes_back_and_is_readable(tmp_path, summary):
    write_summary(Directory(tmp_path), summary())
    assert read_summary(Directory(tmp_path)) == summary()
    assert json.loads((tmp_path / SUMMARY).read_text())["heldout"] == {"rmse": 0.8}
