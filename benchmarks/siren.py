"""Trains SIREN's scheduler in a virtual world, and shows it against each fixed number of functions.

    python benchmarks/siren.py DATASET --target 0.86 [--world aws-lambda] [--workers 8] [--episodes 150]

DATASET is one of ratings. An episode is a whole job to the target: real gradients, virtual time. The
scheduler learns by policy gradient (``baselines/scheduling.py``) from episodes with seeds of their own. It is
then shown, always taking its likeliest action, on seeds that it has not seen, and so is each fixed number.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from functools import partial

import msgspec
import numpy as np

from mlless.baselines import siren
from mlless.baselines.contract import System
from mlless.baselines.scheduling import Action, Fixed, Policy, PolicyGradient, State, Taken
from mlless.data.dataset import Dataset, open_dataset
from mlless.deployment import Deployment
from mlless.job import JobSpec
from mlless.simulation.environment import Environment
from mlless.simulation.jobs import Simulation
from mlless.simulation.world import World, load_world
from mlless.wishes import Wishes

SEEN, UNSEEN = 1_000, 1  # the first seeds of episodes, and of what is shown


class Likeliest:
    """Takes the likeliest action of a policy, and learns no more."""

    def __init__(self, policy: PolicyGradient) -> None:
        self._policy = policy

    def act(self, state: State) -> int:
        """Return the action."""
        return int(np.argmax(self._policy.probabilities(state)))

    def learn(self, episode: Sequence[Taken]) -> None:
        """Do nothing."""


def job(policy: Policy, wishes: Wishes, dataset: Dataset, world: World) -> Simulation:
    """Play a job in which a policy schedules."""
    own = siren.SYSTEMS["siren"]

    def scheduler(actions: Sequence[Action], spec: JobSpec) -> Policy:
        return policy

    system = System(
        about="", wishes=own.wishes, served=False, talks=False, entry=own.entry,
        lead=partial(siren.lead, scheduler=scheduler),
    )  # fmt: skip
    spec = system.plan(wishes, dataset)
    return system.play(spec, dataset, Deployment())(Environment(world, spec, dataset), lambda record: None)


def told(name: str, runs: Sequence[Simulation]) -> str:
    """Return a row of the table."""
    seconds, dollars = ([one.seconds for one in runs], [one.bill.total if one.bill else 0.0 for one in runs])
    reached = sum(one.outcome.stop_reason == "target" for one in runs)
    functions = [record.workers for one in runs for record in one.records if record.samples]
    epochs = len(functions) / len(runs)
    return (
        f"| {name} | {reached} of {len(runs)} | {statistics.mean(seconds):.1f} s | "
        f"${statistics.mean(dollars):.5f} | {statistics.mean(functions):.1f} | {epochs:.1f} |"
    )


def main() -> None:
    """Train, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("--target", type=float, required=True)
    parser.add_argument("--world", default="aws-lambda")
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=1_000)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--max-cost", type=float)
    parser.add_argument("--episodes", type=int, default=150)
    parser.add_argument("--shown", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    dataset, world = open_dataset(asked.dataset), load_world(asked.world)
    wishes = Wishes(
        workers=asked.workers, batch_size=asked.batch_size, epochs=asked.epochs,
        target=f"rmse={asked.target}", tariff="aws-lambda-x86", max_cost=asked.max_cost,
    )  # fmt: skip
    counts = [2**n for n in range(asked.workers.bit_length()) if 2**n < asked.workers] + [asked.workers]
    policy = PolicyGradient(len(counts), np.random.default_rng(asked.seed))

    def shown(policy: Policy) -> list[Simulation]:
        seeds = range(UNSEEN, UNSEEN + asked.shown)
        return [job(policy, msgspec.structs.replace(wishes, seed=seed), dataset, world) for seed in seeds]

    print("| functions an epoch | came to the target | time | money | mean | epochs |")
    print("|---|---|---|---|---|---|", flush=True)
    for number, count in enumerate(counts):
        print(told(f"always {count}", shown(Fixed(number))), flush=True)
    print(told("untrained, likeliest", shown(Likeliest(policy))), flush=True)
    began = time.monotonic()
    for episode in range(asked.episodes):
        job(policy, msgspec.structs.replace(wishes, seed=SEEN + episode), dataset, world)
    taught = time.monotonic() - began
    print(told(f"after {asked.episodes} episodes", shown(Likeliest(policy))), flush=True)
    start = State(0.0, 1.0, 1.0, 0.0, 1.0)
    likely = ", ".join(
        f"{count}: {one:.2f}" for count, one in zip(counts, policy.probabilities(start), strict=True)
    )
    print(f"\nlikely before the first epoch: {likely}; {taught:.0f} s of this machine to learn")


if __name__ == "__main__":
    main()
