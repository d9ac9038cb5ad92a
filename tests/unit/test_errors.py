"""Every error says what happened, where, what was expected and found, and what to do."""

from __future__ import annotations

import inspect
import re

import pytest

from mlless import errors
from mlless.errors import MLLessError

TREE = [found for _, found in inspect.getmembers(errors, inspect.isclass) if issubclass(found, MLLessError)]


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ({}, "it broke"),
        ({"where": "data/x"}, "data/x: it broke"),
        ({"expected": "a", "found": "b"}, "it broke: expected a, found b"),
        ({"found": "b"}, "it broke: found b"),
        ({"cure": "mend it"}, "it broke. Mend it"),
        (
            {"where": "w", "expected": "a", "found": "b", "cure": "mend it"},
            "w: it broke: expected a, found b. Mend it",
        ),
    ],
)
def test_the_text_is_made_of_the_parts(parts: dict[str, str], text: str) -> None:
    error = MLLessError("it broke", **parts)
    assert str(error) == text
    assert (error.what, error.where, error.cure) == ("it broke", parts.get("where"), parts.get("cure"))


def test_the_outline_at_the_top_of_the_module_is_the_tree() -> None:
    assert errors.__doc__ is not None
    tree = next(part for part in errors.__doc__.split("\n\n") if part.lstrip().startswith("MLLessError"))
    outline = dict(re.findall(r"(\w+) +(\d)?", tree))
    assert {found.__name__ for found in TREE} <= set(outline)
    for found in TREE:
        if outline[found.__name__]:
            assert found.exit_code == int(outline[found.__name__])


def test_each_branch_has_an_exit_code_of_its_own() -> None:
    branches = MLLessError.__subclasses__()
    codes = [branch.exit_code for branch in branches]
    assert len(set(codes)) == len(codes)
    assert MLLessError.exit_code not in codes
    for found in TREE:
        branch = next((b for b in branches if issubclass(found, b)), MLLessError)
        assert found.exit_code == branch.exit_code
        assert found.__doc__
