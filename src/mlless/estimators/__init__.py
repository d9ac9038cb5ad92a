"""The scikit-learn face: estimators over the same training as the command line's.

The only room that imports scikit-learn (extra ``sklearn``).
"""

from __future__ import annotations

from mlless.errors import DataWarning, not_installed

try:
    import sklearn  # noqa: F401 (only to say what is missing)
except ModuleNotFoundError as error:
    missing = not_installed("an estimator", "scikit-learn", extra="sklearn")
    raise ModuleNotFoundError(str(missing), name="sklearn") from error

from mlless.estimators.factorization import MatrixFactorization
from mlless.estimators.logistic import LogisticRegression
from mlless.tracking.callback import Callback

__all__ = ["Callback", "DataWarning", "LogisticRegression", "MatrixFactorization"]
