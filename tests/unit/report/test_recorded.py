from __future__ import annotations

import math

import numpy as np
import pytest

from mlless.errors import DatasetError, UsageError
from mlless.report.history import HISTORY, SUMMARY
from mlless.report.recorded import (
    Series,
    binned,
    cost_over_time,
    metric_over,
    points,
    read_runs,
    speeds,
    thinned,
    workers_over_time,
)


class TestReading:
    def test_a_run_comes_back(self, stored, history):
        (run,) = read_runs([stored(price=0.1, tuned=True)])
        assert run.name == "one"
        assert list(run.history) == history(price=0.1, tuned=True)
        assert [record.step for record in run.decided] == [13, 23]

    def test_names_are_as_long_as_it_takes(self, stored):
        runs = read_runs([stored("a/x/r"), stored("b/x/r"), stored("b/y/r")])
        assert [run.name for run in runs] == ["a/x/r", "b/x/r", "b/y/r"]
        assert [run.name for run in runs[:0] + read_runs([runs[0].location])] == ["r"]

    def test_the_same_run_twice_is_refused(self, stored):
        folder = stored()
        with pytest.raises(UsageError, match="named twice"):
            read_runs([folder, f"{folder}/../one"])

    def test_what_is_no_finished_run_is_refused(self, stored, tmp_path):
        with pytest.raises(DatasetError, match="no run here"):
            read_runs([tmp_path / "nowhere"])
        (stored() / SUMMARY).unlink()
        with pytest.raises(UsageError, match="under way, or has failed"):
            read_runs([tmp_path / "one"])

    @pytest.mark.parametrize("name", [HISTORY, SUMMARY])
    @pytest.mark.parametrize("content", [b'{"step": "x"}\n', b"\xff\xfe", b"{"])
    def test_damaged_files_are_told(self, stored, name, content):
        folder = stored()
        (folder / name).write_bytes(content)
        with pytest.raises(DatasetError, match="not the files of a run"):
            read_runs([folder])

    def test_a_missing_or_empty_history_is_told(self, stored):
        folder = stored()
        (folder / HISTORY).write_bytes(b"")
        with pytest.raises(DatasetError, match="history is empty"):
            read_runs([folder])
        (folder / HISTORY).unlink()
        with pytest.raises(DatasetError, match="not the files of a run"):
            read_runs([folder])


class TestSeries:
    def test_a_metric_over_each_axis(self, recorded):
        run = recorded(pace=2.0, price=0.5)
        assert metric_over(run, "rmse", "steps").x == pytest.approx([0, 10, 20, 30])
        assert metric_over(run, "rmse", "seconds").x == pytest.approx([2, 22, 42, 62])
        assert metric_over(run, "rmse", "dollars").x == pytest.approx([1, 11, 21, 31])
        assert metric_over(run, "rmse", "dollars").y == pytest.approx(
            [1.8, 0.8 + 1 / 11, 0.8 + 1 / 21, 0.8 + 1 / 31]
        )
        assert len(metric_over(run, "train_loss", "steps").x) == 40

    def test_nothing_is_known_over_money_without_a_tariff(self, recorded):
        assert len(metric_over(recorded(), "rmse", "dollars").x) == 0
        assert len(cost_over_time(recorded()).x) == 0

    def test_the_last_model_is_evaluated_when_no_step_is_left_to_say_so(self, recorded, bill):
        ends = {"restored": False, "heldout": {"rmse": 0.75}, "model_step": 40, "bill": bill(9.0)}
        *_, last = points(recorded(changes=ends, price=0.1), "rmse")
        assert (last.value, last.steps, last.seconds, last.dollars) == (0.75, 40, 40.0, 9.0)
        assert len(points(recorded(changes={"restored": True}), "rmse")) == 4

    def test_what_is_no_number_is_left_out(self, recorded, step):
        run = recorded()
        broken = step(40, train_loss=math.nan, heldout={"rmse": math.inf})
        run = type(run)(run.name, run.location, run.summary, [*run.history, broken])
        assert len(points(run, "rmse")) == 4
        assert len(points(run, "train_loss")) == 40

    def test_workers_change_as_a_step_begins(self, recorded):
        line = workers_over_time(recorded(tuned=True))
        assert (line.x[0], line.y[0]) == (0.0, 4.0)
        # Drawn up to a point at the height of its end: step 26, the first of two workers, ends at 27 s.
        assert line.y[line.x == 26.0] == [4.0]
        assert line.y[line.x == 27.0] == [2.0]

    def test_speeds_are_medians_without_evaluations(self, recorded):
        assert speeds(recorded(pace=0.25, tuned=True)) == pytest.approx({2: 4.0, 4: 4.0})

    def test_thinning_keeps_both_ends_and_binning_the_mean(self):
        line = Series(np.arange(1000.0), np.arange(1000.0) ** 2)
        few = thinned(line, 50)
        assert len(few.x) <= 50
        assert (few.x[0], few.x[-1]) == (0.0, 999.0)
        means = binned(line, 50)
        assert len(means.x) == 50
        assert means.y.mean() == pytest.approx(line.y.mean())
        assert binned(Series(line.x[:3], line.y[:3]), 50).y == pytest.approx(line.y[:3])
