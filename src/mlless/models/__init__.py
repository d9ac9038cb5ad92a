"""PURE: what is trained. Loss and change of a model over tables of parameters; optimizers; metrics.

``Model`` is the contract; ``model_of`` gives the model that a job names.
"""

from __future__ import annotations

from mlless.job import Factorization, Logistic
from mlless.models.base import Model
from mlless.models.factorization import FactorizationModel
from mlless.models.logistic import LogisticModel

__all__ = ["Model", "model_of"]


def model_of(spec: Factorization | Logistic) -> Model:
    """Return the model that ``spec`` describes."""
    if isinstance(spec, Factorization):
        return FactorizationModel(spec)
    return LogisticModel(spec)
