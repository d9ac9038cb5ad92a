"""The model file: tables, original ids, and what is needed to score with them. No pickle.

A safetensors file ``model.safetensors``: the tables by name (float32), and a JSON description as metadata.
For ratings there are also ``user_ids`` and ``item_ids``, the original id of each row: int64, or text as
``mlless.data.ids.pack`` has it. Nothing in it depends on when or where it was written, so the same seed gives
the same file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec
import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from mlless.channels.opening import open_objects
from mlless.checkpoint import metadata_of
from mlless.data.features import FeatureMap
from mlless.data.ids import RatingIds, pack, unpack
from mlless.errors import DatasetError, MissingObject
from mlless.job import Factorization, Logistic
from mlless.kernels.arrays import Floats
from mlless.locations import Place
from mlless.models import model_of
from mlless.stopping import Score

MODEL = "model.safetensors"
FORMAT = 1
_KEY, _NOTES = "mlless", "estimator"


class Description(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a model file says of itself.

    ``trained_on`` is the data set's fingerprint; ``columns`` says how its features were made of raw
    columns, where they were. The model of a run has its ``score``, if it was evaluated.
    """

    format: int
    version: str
    model: Factorization | Logistic
    trained_on: str
    seed: int
    columns: FeatureMap | None = None
    score: Score | None = None

    def __post_init__(self) -> None:
        """Raise ValueError if the columns do not make the model's features."""
        if self.columns and isinstance(self.model, Logistic):
            self.columns.check_learned(self.model.features)


@dataclass(frozen=True)
class Artifact:
    """A trained model: its description, its tables, and for ratings the original ids.

    ``extras`` and ``notes`` (JSON) are what an estimator needs besides to go on; nothing else reads them.
    """

    description: Description
    tables: dict[str, Floats]
    ids: RatingIds | None
    extras: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)
    notes: str = ""


def write_artifact(run: Place, artifact: Artifact) -> int:
    """Write the model file of a run, whole or not at all; return its bytes."""
    arrays: dict[str, NDArray[np.generic]] = dict(artifact.tables)
    if artifact.ids is not None:
        arrays |= pack("user_ids", artifact.ids.users) | pack("item_ids", artifact.ids.items)
    arrays |= artifact.extras
    metadata = {_KEY: msgspec.json.encode(artifact.description).decode()}
    if artifact.notes:
        metadata[_NOTES] = artifact.notes
    data = safetensors.numpy.save(arrays, metadata)
    open_objects(run).put(MODEL, data)
    return len(data)


def read_artifact(run: Place) -> Artifact:
    """Return the model of a run; DatasetError if there is none, or a damaged one."""
    path = f"{run}/{MODEL}"
    try:
        data = open_objects(run).get(MODEL)
    except MissingObject as error:
        raise DatasetError(
            "no model here",
            where=str(run),
            expected=f"a run with {MODEL}",
            cure="make one with mlless train",
        ) from error
    try:
        arrays = safetensors.numpy.load(data)
        metadata = metadata_of(data)
        description = msgspec.json.decode(metadata.get(_KEY, ""), type=Description)
    except (safetensors.SafetensorError, msgspec.DecodeError) as error:
        raise DatasetError("not a model of mlless", where=path, found=str(error)) from error
    if description.format != FORMAT:
        raise DatasetError(
            "a model of another version",
            where=path,
            expected=f"format {FORMAT}",
            found=f"format {description.format}",
            cure="train it again with this version of mlless",
        )
    ids = None
    if isinstance(description.model, Factorization):
        model = description.model
        try:
            ids = RatingIds(unpack(arrays, "user_ids", model.users), unpack(arrays, "item_ids", model.items))
        except ValueError as error:
            raise DatasetError(
                "the model's ids are not what its description says",
                where=path,
                found=str(error),
                cure="train it again",
            ) from error
    tables: dict[str, Floats] = {}
    for shape in model_of(description.model).shapes:
        table = arrays.get(shape.name)
        _require(path, shape.name, table, np.float32, (shape.rows, shape.columns))
        tables[shape.name] = np.asarray(table, np.float32)
    extras = {
        name: array
        for name, array in arrays.items()
        if name not in tables and not name.startswith(("user_ids", "item_ids"))
    }
    return Artifact(description, tables, ids, extras, metadata.get(_NOTES, ""))


def _require(
    path: str, name: str, array: NDArray[np.generic] | None, dtype: type[np.generic], shape: tuple[int, ...]
) -> None:
    if array is None or array.dtype != dtype or array.shape != shape:
        raise DatasetError(
            f"the model's {name} are not what its description says",
            where=path,
            expected=f"{dtype.__name__} {shape}",
            found="nothing" if array is None else f"{array.dtype} {array.shape}",
            cure="train it again",
        )
