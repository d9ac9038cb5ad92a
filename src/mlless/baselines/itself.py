"""MLLess itself, in the ways that it can be asked to train."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlless.baselines.contract import PLAINLY, System
from mlless.closing import Listener
from mlless.data.dataset import Dataset
from mlless.deployment import Deployment
from mlless.job import JobSpec
from mlless.launch import ENTRY
from mlless.locations import Place
from mlless.records import Summary
from mlless.stepping import Stepper

if TYPE_CHECKING:
    from mlless.simulation.running import Play


@dataclass(frozen=True, kw_only=True)
class Itself(System):
    """MLLess' own driver and supervisor; its own worker, too, unless functions start at another ``entry``.

    There the ``stepper`` takes the steps.
    """

    keeps: Sequence[str] = ()
    moves: Mapping[str, Any] = field(default_factory=dict)
    stepper: type[Stepper] = Stepper

    def run(
        self,
        name: str,
        spec: JobSpec,
        dataset: Dataset,
        out: Place,
        *,
        deployment: Deployment,
        listen: Listener,
    ) -> Summary:
        """Run a job as ``mlless train`` does."""
        from mlless.driver import run_job

        return run_job(
            spec,
            dataset,
            out,
            overwrite=True,
            listen=listen,
            deployment=deployment,
            entry=self.entry or ENTRY,
            system=name if self.entry else "mlless",
        ).summary

    def play(self, spec: JobSpec, dataset: Dataset, deployment: Deployment) -> Play:
        """Return how a job is played in a virtual world: one worker is a function there, too."""
        from mlless.simulation.running import play_mlless

        return play_mlless(spec, dataset, deployment, self.stepper)


SYSTEMS: dict[str, System] = {
    "mlless-bsp": Itself(about="every change published", wishes={"sync": "bsp"}),
    "mlless-isp": Itself(about="only significant changes published", wishes={"sync": "isp"}),
    "mlless-published": Itself(
        about="significant changes, and the published tuner lets workers go",
        wishes={"sync": "isp", "tuner": "published", "share_users": True, **PLAINLY},
        packages={"scipy": "scipy"},
        keeps=tuple(PLAINLY),
    ),
    "mlless-economy": Itself(
        about="significant changes, and workers leave who cost more than they help",
        wishes={"sync": "isp", "tuner": "economy"},
        priced=True,
    ),
    "mlless-alone": Itself(
        about="one worker, without functions unless there is a tariff", wishes={"workers": 1}
    ),
}
