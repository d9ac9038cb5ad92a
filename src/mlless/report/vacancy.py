"""Whether a new run may take a place."""

from __future__ import annotations

from mlless.artifact import MODEL
from mlless.channels.opening import open_objects
from mlless.errors import UsageError
from mlless.locations import Directory, Place
from mlless.report.history import CHECKPOINT, HISTORY, PART, SUMMARY, is_finished
from mlless.report.lease import LEASE
from mlless.report.lock import ELSEWHERE, GUARD, LOCK, is_locked
from mlless.report.underway import LOG, STOP, UNDERWAY


def check_run_folder(out: Place, overwrite: bool) -> None:
    """Raise UsageError if a run at ``out`` would replace anything that must not be lost.

    What a run has left behind that never came to a model makes way.
    """
    found = open_objects(out).names()
    if CHECKPOINT in found and not overwrite and not is_finished(out):
        if isinstance(out, Directory) and is_locked(out.path / LOCK):
            raise UsageError("another job writes to this run's folder", where=str(out), cure=ELSEWHERE)
        raise UsageError(
            "a run is here that can be resumed",
            where=str(out),
            cure=f"go on with it: mlless resume {out}; or choose another --out, or add --overwrite",
        )
    if MODEL in found and not overwrite:
        raise UsageError(
            "the run's folder exists", where=str(out), cure="choose another --out, or add --overwrite"
        )
    passing = (HISTORY, LEASE, CHECKPOINT, LOCK, GUARD, UNDERWAY, STOP, LOG)
    others = {name for name in found if name not in passing and not name.startswith((PART, f"{HISTORY}."))}
    if others and MODEL not in found and not (others == {SUMMARY} and not is_finished(out)):
        raise UsageError("not a run's folder, so nothing is written to it", where=str(out))


def make_run_folder(out: Place) -> bool:
    """Make the folder of a run if there is none; return whether that was so. A bucket needs none."""
    if not isinstance(out, Directory) or out.path.is_dir():
        return False
    try:
        out.path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"cannot make the run's folder: {error.strerror}", where=str(out), cure="choose another --out"
        ) from error
    return True
