"""The package as a user meets it: its public names, and no others."""

from __future__ import annotations

import mlless


def test_only_public_names_are_listed():
    assert dir(mlless) == sorted(mlless.__all__)
    assert all(getattr(mlless, name) for name in dir(mlless))
