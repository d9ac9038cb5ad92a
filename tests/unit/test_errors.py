"""Every error says what happened, where, what was expected and found, and what to do."""

from __future__ import annotations

import inspect
import re

import pytest

from mlless import errors
from mlless.errors import MLLessError, UsageError, not_installed

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


@pytest.mark.parametrize(
    ("typed", "text"),
    [
        ("--max-cost is too low", "`max_cost` is too low"),
        ("choose another --out, or add --overwrite", "choose another `out`, or add `overwrite`"),
        ("needs more (--memory, ulimit -v)", "needs more (`memory`, ulimit -v)"),
        ("pass --include-seen", "pass `exclude_seen=False`"),
        ("resume it: mlless resume runs/a --detach; or add --overwrite",
         "resume it: mlless resume runs/a --detach; or add `overwrite`"),
        ("it is small (docker run --shm-size): --memory", "it is small (docker run --shm-size): `memory`"),
        ("data/a--b: 3 - -1 -- none", "data/a--b: 3 - -1 -- none"),
    ],
)  # fmt: skip
def test_options_have_the_names_of_python_unless_they_are_typed(typed: str, text: str) -> None:
    error = UsageError(typed)
    assert str(error) == text
    assert error.as_typed == typed


def test_what_is_not_installed_is_named_with_what_installs_it() -> None:
    assert str(not_installed("a frame", "pandas")).endswith(
        "a frame needs pandas. Install what is missing: pip install pandas"
    )
    told = str(not_installed("a report", "matplotlib", "jinja2", extra="report"))
    assert told == (
        "a report needs matplotlib and jinja2. Install what is missing: pip install 'mlless[report]'"
    )


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
