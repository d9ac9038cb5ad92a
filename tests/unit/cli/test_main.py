from __future__ import annotations

import sys

import pytest

from mlless import cli


def _main(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["mlless", *arguments])
    with pytest.raises(SystemExit) as left:
        cli.main()
    return left.value.code


def test_an_unexpected_error_keeps_its_traceback(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["mlless", "evaluate", str(tmp_path), str(tmp_path)])
    monkeypatch.setattr("mlless.prediction.load", lambda run: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        cli.main()


def test_an_interrupted_command_says_so(monkeypatch, tmp_path, capsys):
    def interrupted(run):
        raise KeyboardInterrupt

    monkeypatch.setattr("mlless.prediction.load", interrupted)
    assert _main(monkeypatch, "evaluate", str(tmp_path), str(tmp_path)) == 130
    assert capsys.readouterr().err == "interrupted: stopped at once, no result is written\n"


def test_no_arguments_show_the_help(monkeypatch, capsys):
    assert _main(monkeypatch) == 2
    assert "mlless partition ratings.csv data/ratings" in capsys.readouterr().out
