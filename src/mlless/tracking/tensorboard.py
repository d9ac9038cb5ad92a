"""Passes a training on to TensorBoard, through its writer of event files."""

from __future__ import annotations

import time
from collections.abc import Sequence
from os import PathLike
from typing import Any

from mlless.tracking.callback import Beginning, Ending
from mlless.tracking.tracker import APART, Point, Tracker, name_of, parameters_of


class TensorBoard(Tracker):
    """Follows a training in event files: ``tensorboard --logdir FOLDER`` shows it while it goes on.

    Parameters
    ----------
    folder : str or path
        Of many runs: that of this training is in it, and has the name of the run's folder. A run of the same
        name takes the place of the one before, and a run that is resumed goes on from its step.
    every : float, default 0.1
        Seconds between two steps that are passed on; evaluations always are.
    """

    tool, packages, extra = "TensorBoard", ("tensorboard",), "tensorboard"

    def __init__(self, folder: str | PathLike[str], *, every: float = APART) -> None:
        super().__init__(every=every)
        self.folder = str(folder)

    def open(self, beginning: Beginning) -> _Events:
        """Begin a file of events."""
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        return _Events(EventFileWriter(f"{self.folder.rstrip('/')}/{name_of(beginning)}"), beginning)


class _Events:
    """A file of events."""

    def __init__(self, writer: Any, beginning: Beginning) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        self._writer = writer
        # Whatever the folder holds from this step on, TensorBoard shows no longer.
        start = SessionLog(status=SessionLog.START)
        writer.add_event(Event(wall_time=time.time(), step=beginning.step, session_log=start))
        job = "\n".join(f"    {name} = {value}" for name, value in parameters_of(beginning.job).items())
        self._text("job", job, beginning.step)

    def write(self, points: Sequence[Point]) -> None:
        """Write an event a step."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        for point in points:
            values = [Summary.Value(tag=name, simple_value=value) for name, value in point.values.items()]
            event = Event(wall_time=point.at, step=point.step, summary=Summary(value=values))
            self._writer.add_event(event)
        self._writer.flush()

    def close(self, ending: Ending) -> None:
        """Write how it ended, and close the file."""
        scores = ", ".join(f"{name} {value:.6g}" for name, value in ending.heldout.items())
        self._text("ended", ", ".join(filter(None, (ending.stop_reason, scores, ending.error))), 0)
        self._writer.close()

    def _text(self, tag: str, text: str, step: int) -> None:
        """Write a text for TensorBoard's page of texts."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
        from tensorboard.compat.proto.tensor_pb2 import TensorProto
        from tensorboard.compat.proto.types_pb2 import DT_STRING

        value = Summary.Value(
            tag=tag,
            metadata=SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text")),
            tensor=TensorProto(dtype=DT_STRING, string_val=[text.encode()]),
        )
        self._writer.add_event(Event(wall_time=time.time(), step=step, summary=Summary(value=[value])))
