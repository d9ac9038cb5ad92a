"""The page about the estimators says what is so: its examples run."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parents[3] / "docs" / "howto" / "estimators.md"


def test_the_examples_of_the_page_run(capsys):
    code = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert len(code) > 5
    names: dict[str, object] = {}
    for example in code:
        exec(compile(example, str(PAGE), "exec"), names)
    shown = capsys.readouterr().out
    assert "['click' 'none'] True" in shown
    assert "(3, 5) (3, 5)" in shown
    assert "callback" in shown
