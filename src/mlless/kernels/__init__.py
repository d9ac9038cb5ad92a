"""The compiled loops and their NumPy twin, behind one set of names.

``MLLESS_KERNELS=numpy`` chooses the twin. Where the compiled kernels are missing the twin stands
in, with one warning.
"""

from __future__ import annotations

import os
import warnings
from types import ModuleType
from typing import TYPE_CHECKING

from mlless.errors import UsageError
from mlless.kernels import twin


def _choose() -> ModuleType:
    wanted = os.environ.get("MLLESS_KERNELS", "native")
    if wanted not in ("native", "numpy"):
        raise UsageError("no such kernels", where="MLLESS_KERNELS", expected="native or numpy", found=wanted)
    if wanted == "numpy":
        return twin
    try:
        from mlless.kernels import native
    except ImportError:
        warnings.warn(
            "mlless runs without its compiled kernels, about eight times slower: it was installed "
            "without a C compiler. Install one (gcc or clang) and reinstall mlless.",
            RuntimeWarning,
            stacklevel=3,
        )
        return twin
    return native


_chosen = _choose()
NAME = "numpy" if _chosen is twin else "native"

if TYPE_CHECKING:
    from mlless.kernels.twin import (
        factorization_error,
        factorization_step,
        logistic_margins,
        logistic_step,
        merge_updates,
        pack_update,
    )
else:
    factorization_error = _chosen.factorization_error
    factorization_step = _chosen.factorization_step
    logistic_margins = _chosen.logistic_margins
    logistic_step = _chosen.logistic_step
    merge_updates = _chosen.merge_updates
    pack_update = _chosen.pack_update

__all__ = [
    "NAME",
    "factorization_error",
    "factorization_step",
    "logistic_margins",
    "logistic_step",
    "merge_updates",
    "pack_update",
]
