"""Tells the logger ``mlless.job`` how a training goes. Who wants to see it sets up ``logging``."""

from __future__ import annotations

import logging

from mlless.records import StepRecord
from mlless.report.course import Course, lines
from mlless.report.wording import metrics
from mlless.tracking.callback import Beginning, Ending

LOGGER = logging.getLogger("mlless.job")
LOGGER.addHandler(logging.NullHandler())  # else Python itself shows errors where nobody has set up logging


class Log:
    """A callback: INFO for beginning, evaluations, what happens to workers, and the end; DEBUG for steps."""

    def __init__(self) -> None:
        self._course: Course | None = None
        self._newest = -1

    def on_begin(self, beginning: Beginning) -> None:
        """Say what begins."""
        job = beginning.job
        self._course = Course(job)
        start = f"goes on from step {beginning.step}" if beginning.step else "begins"
        LOGGER.info("%s: a training of %s %s", beginning.run or "in memory", job.dataset, start)

    def on_step(self, record: StepRecord) -> None:
        """Say what there is to say of a step."""
        self._newest = record.step
        if self._course is not None and LOGGER.isEnabledFor(logging.INFO):
            LOGGER.debug("step %d, epoch %.2f, loss %s", record.step, record.epoch, record.loss)
            for line in lines(self._course, record):
                LOGGER.info("%s", line)

    def on_epoch(self, record: StepRecord) -> None:
        """Say how the finished model scores, whose evaluation is no step of training."""
        if record.step != self._newest:
            self.on_step(record)

    def on_end(self, ending: Ending) -> None:
        """Say how it ended: an error if it has failed."""
        if ending.error:
            LOGGER.error("the training has failed: %s", ending.error)
        else:
            LOGGER.info("ended: %s %s", ending.stop_reason, metrics(ending.heldout))
