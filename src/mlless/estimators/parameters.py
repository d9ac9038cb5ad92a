"""What both estimators may be asked for, under scikit-learn's names where it has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, ClassVar, Literal

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions, validate_parameter_constraints

from mlless import recipes
from mlless.data.memory import Parting
from mlless.wishes import Wishes

AT_LEAST_1 = Interval(Integral, 1, None, closed="left")
FROM_0 = Interval(Real, 0, None, closed="left")
ABOVE_0 = Interval(Real, 0, None, closed="neither")

_PARAMETERS = """\
    optimizer : {{"adagrad", "nesterov"}}, default "adagrad"
        How to step, as in `mlless.train`.
    learning_rate, max_time : float, optional
        As in `mlless.train`.
    sync : {{"isp", "bsp"}}, default "isp"
        What workers exchange, where there is more than one, as in `mlless.train`.
    significance : float, optional
        The threshold of "isp", as in `mlless.train`.
    max_iter : int, optional
        The most epochs. None is {epochs}.
        On small arrays it is as many as come to {steps:,} steps. A number that is given is reached, unless
        ``n_iter_no_change`` is given too; ``n_iter_`` may be smaller after a ``refit``.
    n_iter_no_change : int, optional
        After how many epochs without a better held-out metric a fit ends; None is {patience}. Where
        nothing is held out, a fit of arrays takes all epochs, unless a number is given for the training loss.
    tol : float, default 0
        How much better a held-out metric must be to count for ``n_iter_no_change``, in {unit}.
    batch_size : int, optional
        Rows of a mini-batch; None is a 300th of the rows, from 64 to 6,250.
    validation_fraction : float, optional
        The share of the rows of arrays that is held out to end early and to keep the best model; 0 is
        none, None is 0.1 from {held_out:,} rows on and 0 below. A data set has its own held-out part.
    refit : bool, default True
        Whether the model is trained once more on all rows, for the number of epochs that was best for
        those held out. It is done for arrays only, and only if the held-out rows or the number of epochs
        ended the fit.
    workers : int or "auto", default 1
        1 trains in this process; more are processes of their own; "auto" is 1 unless the data is large.
    warm_start : bool, default False
        Whether ``fit`` goes on from the model that is there.
    random_state : int or RandomState, optional
        A whole number is the seed itself.
    callbacks : list, optional
        Functions that hear of every epoch, or objects as `mlless.estimators.Callback`.
    verbose : int, default 0
        1 prints a line an epoch."""

_ATTRIBUTES = """\
    n_iter_, n_steps_ : int
        Epochs of the last fit, with ``refit`` of that on all rows; steps of the whole training.
    loss_curve_ : list of float
        Training loss at the end of each epoch of the last fit, an average over its latest steps. Of a
        ``refit`` nothing is told, here or below.
    validation_scores_ : list of float, or None
        Minus the held-out {metric} after each epoch, so that greater is better; None where nothing is
        held out. Not a number after the last epoch if an earlier model was better.
    best_validation_score_ : float or None
        That of the best model.
    heldout_ : dict of float
        Held-out metrics of that model; empty where nothing is held out.
    stop_reason_ : str
        Why the last fit has ended: "epochs", "patience", "time", "callback" or "diverged"."""


@dataclass(eq=False, repr=False, kw_only=True)
class Parameters(BaseEstimator):
    """The parameters, each a field; ``{parameters}`` in a docstring stands for what there is to say."""

    _kind: ClassVar[Literal["mf", "lr"]]
    _words: ClassVar[Mapping[str, Any]]
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "optimizer": [StrOptions({"adagrad", "nesterov"})],
        "learning_rate": [ABOVE_0, None],
        "max_iter": [AT_LEAST_1, None],
        "n_iter_no_change": [AT_LEAST_1, None],
        "tol": [FROM_0],
        "batch_size": [AT_LEAST_1, None],
        "validation_fraction": [Interval(Real, 0, 1, closed="left"), None],
        "refit": ["boolean"],
        "max_time": [ABOVE_0, None],
        "workers": [AT_LEAST_1, StrOptions({"auto"})],
        "sync": [StrOptions({"isp", "bsp"})],
        "significance": [FROM_0, None],
        "warm_start": ["boolean"],
        "random_state": ["random_state"],
        "callbacks": [list, tuple, None],
        "verbose": ["verbose"],
    }

    optimizer: str = "adagrad"
    learning_rate: float | None = None
    max_iter: int | None = None
    n_iter_no_change: int | None = None
    tol: float = 0.0
    batch_size: int | None = None
    validation_fraction: float | None = None
    refit: bool = True
    max_time: float | None = None
    workers: int | str = 1
    sync: str = "isp"
    significance: float | None = None
    warm_start: bool = False
    random_state: Any = None
    callbacks: Sequence[Any] | None = None
    verbose: int = 0

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.__doc__ and "_words" in vars(cls):
            for place, text in (("{parameters}", _PARAMETERS), ("{attributes}", _ATTRIBUTES)):
                cls.__doc__ = cls.__doc__.replace(f"    {place}", text.format(**cls._words))

    def _wishes(self, **instead: Any) -> Wishes:
        """Return the parameters, some of them replaced, as the wishes of a training."""
        asked = {**self.get_params(deep=False), **instead}
        validate_parameter_constraints(self._parameter_constraints, asked, caller_name=type(self).__name__)
        given = {name: plain(asked[name]) for name in Wishes.__struct_fields__ if name in asked}
        return Wishes(
            **{
                **given,
                "model": self._kind,
                "seed": self._seed(),
                "epochs": plain(asked["max_iter"]),
                "patience": plain(asked["n_iter_no_change"]),
                "workers": None if asked["workers"] == "auto" else plain(asked["workers"]),
            }
        )

    def _seed(self) -> int:
        """Return the seed that ``random_state`` stands for; a whole number is the seed itself."""
        if isinstance(self.random_state, Integral):
            return int(self.random_state)
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def _parting(self, rows: int, seed: int, *, partial: bool) -> Parting:
        """Return which of so many rows in memory are held out; of a part nothing is."""
        share = plain(self.validation_fraction)
        if share is None:
            share = recipes.held_out_share(self._kind, rows)
        if rows and round(rows * share) >= rows:
            raise ValueError(
                f"With n_samples={rows} and validation_fraction={share}, nothing is left to train on."
            )
        return Parting(0.0 if partial else float(share), seed)


def plain(value: Any) -> Any:
    """Return a NumPy scalar, as grids are made of, as the Python value that it is."""
    return value.item() if isinstance(value, np.generic) else value
