"""The compiled loops and their NumPy twin, behind one set of names.

``MLLESS_KERNELS=numpy`` chooses the twin. Where the compiled kernels are missing the twin stands
in, with one warning, and ``MISSING`` says why.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from mlless.errors import UsageError
from mlless.kernels import twin

__all__ = [
    "CURE",
    "MISSING",
    "NAME",
    "add_update",
    "assemble_clicks",
    "assemble_ratings",
    "cut_update",
    "factorization_error",
    "factorization_step",
    "flush_table",
    "logistic_margins",
    "logistic_step",
    "merge_updates",
    "pack_update",
    "publish_sums",
    "sum_updates",
]

CURE = "install gcc or clang and the headers of Python, and reinstall mlless"
_FAILURE = Path(__file__).with_name("build_failure.txt")  # setup.py leaves it


def _choose() -> tuple[ModuleType, str]:
    wanted = os.environ.get("MLLESS_KERNELS", "native")
    if wanted not in ("native", "numpy"):
        raise UsageError("no such kernels", where="MLLESS_KERNELS", expected="native or numpy", found=wanted)
    if wanted == "numpy":
        return twin, ""
    try:
        from mlless.kernels import native

        if lacking := [name for name in __all__ if name.islower() and not hasattr(native, name)]:
            raise ImportError(f"they are of another release, without {', '.join(lacking)}")
    except ImportError as error:
        try:
            reason = f"they could not be compiled when it was installed:\n{_FAILURE.read_text().rstrip()}"
        except OSError:
            reason = str(error)
        warnings.warn(
            f"mlless runs without its compiled kernels, about eight times slower. Why: {reason}\n"
            f"{CURE[0].upper()}{CURE[1:]}.",
            RuntimeWarning,
            stacklevel=3,
        )
        return twin, reason
    return native, ""


_chosen, MISSING = _choose()
NAME = "numpy" if _chosen is twin else "native"

if TYPE_CHECKING:
    from mlless.kernels.twin import (
        add_update,
        assemble_clicks,
        assemble_ratings,
        cut_update,
        factorization_error,
        factorization_step,
        flush_table,
        logistic_margins,
        logistic_step,
        merge_updates,
        pack_update,
        publish_sums,
        sum_updates,
    )
else:
    add_update = _chosen.add_update
    assemble_clicks = _chosen.assemble_clicks
    assemble_ratings = _chosen.assemble_ratings
    cut_update = _chosen.cut_update
    factorization_error = _chosen.factorization_error
    factorization_step = _chosen.factorization_step
    flush_table = _chosen.flush_table
    logistic_margins = _chosen.logistic_margins
    logistic_step = _chosen.logistic_step
    merge_updates = _chosen.merge_updates
    pack_update = _chosen.pack_update
    publish_sums = _chosen.publish_sums
    sum_updates = _chosen.sum_updates
