"""PURE: what is trained. Loss and change of a model over tables of parameters; optimizers; metrics.

``Model`` is the contract; ``model_of`` gives the model that a job names.
"""

from __future__ import annotations

from dataclasses import replace

from mlless.job import Factorization, JobSpec, Logistic
from mlless.models.base import Model
from mlless.models.factorization import FactorizationModel
from mlless.models.logistic import LogisticModel
from mlless.replica import TableShape

__all__ = ["Model", "model_of", "tables_of"]


def model_of(spec: Factorization | Logistic) -> Model:
    """Return the model that ``spec`` describes."""
    if isinstance(spec, Factorization):
        return FactorizationModel(spec)
    return LogisticModel(spec)


def tables_of(spec: JobSpec) -> tuple[TableShape, ...]:
    """Return the tables of a job's model, as its workers have them: rows of some may be owned."""
    shapes = model_of(spec.model).shapes
    return tuple(replace(shape, owned=shape.apart and spec.owns_users) for shape in shapes)
