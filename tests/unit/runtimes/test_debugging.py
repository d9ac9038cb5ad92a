"""Whether tracebacks are wanted beside the errors that tell of them."""

from __future__ import annotations

import pytest

from mlless.runtimes.ports import debugging


@pytest.mark.parametrize("text", ["1", "true", "yes", "On", "2"])
def test_on(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("MLLESS_DEBUG", text)
    assert debugging()


@pytest.mark.parametrize("text", ["", "0", "false", "No", " off ", "FALSE"])
def test_off(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("MLLESS_DEBUG", text)
    assert not debugging()


def test_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLLESS_DEBUG", raising=False)
    assert not debugging()
