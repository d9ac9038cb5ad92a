"""What a training is about to do and what came of it, in words: labelled lines for a person."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator

from mlless.billing.amount import money
from mlless.deployment import Deployment
from mlless.errors import hidden
from mlless.job import Adagrad, Factorization, JobSpec
from mlless.locations import Place
from mlless.mark import SHARE
from mlless.memory import megabytes
from mlless.records import StepTimes, Summary
from mlless.report.wording import count, duration, metrics, size

Line = tuple[str, str]  # a label and what is said under it


def thing_of(spec: JobSpec) -> str:
    """Return what one row of a job's data set is."""
    return "rating" if isinstance(spec.model, Factorization) else "row"


def opening(spec: JobSpec, deployment: Deployment) -> Iterator[Line]:
    """Yield what is to be trained, on what, by whom, where, and until when."""
    rows = f"{count(spec.rows, thing_of(spec))} to train on, {count(spec.held_out)} held out"
    yield "data", f"{spec.dataset}: {rows}, {count(spec.batches, 'mini-batch')} an epoch"
    model = spec.model
    if isinstance(model, Factorization):
        shape = (
            f"{count(model.users, 'user')}, {count(model.items, 'item')}, {count(model.factors, 'factor')}"
        )
        yield "model", f"matrix factorisation: {shape}"
    else:
        yield "model", f"logistic regression: {count(model.features, 'feature')}"
    yield "optimizer", f"{_optimizer(spec)}, l2 {model.l2:.3g}"
    yield "workers", ", ".join((str(spec.workers), _sync(spec), *_exchange(spec)))
    if spec.workers > 1:
        yield from (("exchange", reason) for reason in spec.movement)
    if spec.scaling.policy != "off":
        least = count(spec.scaling.min_workers, "worker")
        yield "tuner", f"{spec.scaling.policy}: lets workers go, down to {least}"
    if not deployment.is_plain:
        yield "where", where(deployment)
    if deployment.log_to is not None:
        yield "followed", hidden(f"by {deployment.log_to}")
    yield "until", _until(spec)


def where(deployment: Deployment) -> str:
    """Return where functions run and meet, and within which limits, without passwords."""
    store, bus = ", ".join(deployment.servers), deployment.meeting
    place = f"store {store}, bus {bus if bus != store else 'the same'}"
    functions = {"processes": "processes of this machine", "lithops": "functions by Lithops"}
    limits = ((deployment.memory, "MB"), (deployment.time_limit, "s"))
    each = " and ".join(f"{limit:,} {unit}" for limit, unit in limits if limit is not None)
    return f"{functions[deployment.runtime]}{f' of {each} each' if each else ''}, {hidden(place)}"


def _optimizer(spec: JobSpec) -> str:
    name = "adagrad" if isinstance(spec.optimizer, Adagrad) else "nesterov"
    return f"{name}, learning rate {spec.optimizer.learning_rate:g}"


def _sync(spec: JobSpec) -> str:
    sync = spec.sync
    if sync.significance == 0:
        return "bsp: every change is published"
    return f"isp: only changes above v = {sync.significance:g} are published"


def _exchange(spec: JobSpec) -> Iterator[str]:
    """Yield how updates move and what becomes of a lost worker, where that is not as usual."""
    if spec.workers > 1 and spec.share_users:
        yield "those of users, too"
    if spec.pattern != "broadcast":
        yield f"updates move by {spec.pattern}"
    if spec.workers > 1 and spec.local_steps > 1:
        since = f" from epoch {spec.local_since + 1} on" if spec.local_since else ""
        yield f"{count(spec.local_steps, 'mini-batch')} an exchange{since}"
    if spec.ahead:
        yield f"merged {count(spec.slack, 'step')} late"
    if spec.on_loss != "replace":
        shrinks = spec.on_loss == "shrink"
        yield "the others go on without one that is lost" if shrinks else "a lost one ends the job"


def _until(spec: JobSpec) -> str:
    stop = spec.stop
    rules = [count(stop.epochs, "epoch")]
    if stop.target:
        rules.append(f"{stop.target.metric} = {stop.target.value:g}")
    if stop.patience:
        rules.append(f"{count(stop.patience, 'evaluation')} without a better one")
    if stop.max_time:
        rules.append(duration(stop.max_time))
    if stop.max_cost:
        rules.append(money(stop.max_cost))
    return ", or ".join(rules)


def closing(summary: Summary, folder: str) -> Iterator[Line]:
    """Yield the held-out result, why the run ended, where the model is, and where time and bytes went."""
    job = summary.job
    if summary.heldout:
        yield "result", f"{metrics(summary.heldout)} on {count(job.held_out, 'held-out ' + thing_of(job))}"
    elif summary.train_loss is not None:
        loss = f"{summary.job.metrics[0]} {summary.job.on_scale(summary.train_loss):.4f}"
        yield "result", f"train {loss}; nothing was held out to check it on"
    for note in summary.notes:
        yield "note", note
    if _was_improving(summary):
        stop = summary.job.stop
        more = f"--epochs {2 * stop.epochs} --patience {stop.patience}"
        yield "note", f"the last epoch was still the best, so that more may do better: train with {more}"
    every, share = summary.job.checkpoint_every, summary.checkpoints.share
    if every is not None and share > SHARE:
        yield (
            "note",
            f"checkpoints took {share:.1%} of the time, as --checkpoint-every {every:g} asks for them",
        )
    if summary.job.scaling.policy != "off":
        yield "workers", _left(summary)
    epochs = "" if summary.stop_reason == "epochs" else f"{summary.epochs:.1f} epochs, "
    yield "ended", f"{why_ended(summary)} ({epochs}{duration(summary.wall_seconds)})"
    which = f" (the best: as it was after step {summary.model_step})" if summary.restored else ""
    yield "model", f"{folder}{which}"
    published = f"published {size(summary.bytes_published)}, read {size(summary.bytes_read)}"
    yield "traffic", f"{published}, mini-batches {size(summary.bytes_fetched)}"
    yield "time", f"{shares(summary.times)} (mean over workers)"
    if told := functions_told(summary.handovers, summary.lost):
        yield "functions", told
    if summary.peak_memory is not None:
        yield "memory", f"at most {megabytes(summary.peak_memory)} a worker"
    if summary.bill is not None:
        yield "cost", str(summary.bill)


def left_by(summary: Summary, place: Place) -> Iterator[str]:
    """Yield what a job that has failed leaves behind: what it has cost, and where its best model is."""
    if summary.bill is not None:
        yield f"it has cost {money(summary.bill.total)} by {summary.bill.tariff}"
    if summary.checkpoints.step is not None:
        step = summary.checkpoints.step
        how = resume_command(place, summary.options)
        yield f"it can be resumed from its checkpoint, that of step {step}: {how}"
    if summary.model_step:
        yield f"the best model so far, that of step {summary.model_step}, is in {place}"


def resume_command(place: Place | str, options: Iterable[str]) -> str:
    """Return how a run is resumed with these options, as one types it to a shell."""
    return shlex.join(["mlless", "resume", str(place), *options])


def _was_improving(summary: Summary) -> bool:
    """Return whether held-out rows were to tell when to stop, and did not by the last epoch."""
    patient = summary.job.stop.patience is not None
    return patient and summary.stop_reason == "epochs" and bool(summary.heldout) and not summary.restored


def _left(summary: Summary) -> str:
    """Return how many workers there were in turn, or why no one left."""
    counts = " → ".join(map(str, summary.members))
    if len(summary.members) > 1:
        return counts
    return f"{counts}, no one left: {summary.last_look or 'the job was over before the tuner looked'}"


def functions_told(handovers: int, lost: int) -> str:
    """Return how many functions handed over, and were lost; nothing if none did."""
    told = ((handovers, "handed over to a successor"), (lost, "lost"))
    return ", ".join(f"{count(number)} {what}" for number, what in told if number)


def why_ended(summary: Summary) -> str:
    """Return why a run came to its end."""
    stop = summary.job.stop
    match summary.stop_reason:
        case "epochs":
            return f"{count(stop.epochs, 'epoch')} done"
        case "target" if stop.target:
            return f"target reached: {stop.target.metric} {stop.target.value:g}"
        case "patience":
            return f"no better in {count(stop.patience or 0, 'evaluation')}"
        case "time" if stop.max_time:
            return f"no time for another step and the ending within {duration(stop.max_time)}"
        case "cost" if stop.max_cost and summary.bill and summary.bill.total > stop.max_cost:
            return f"the budget of {money(stop.max_cost)} was exceeded: the ending cost more than foreseen"
        case "cost" if stop.max_cost:
            return f"no money for another step and the ending within {money(stop.max_cost)}"
        case "diverged":
            return "the model diverged"
        case "callback":
            return "a callback asked for the end"
        case reason:
            return reason


def shares(times: StepTimes) -> str:
    """Return where time went, as percentages."""
    seconds = {name: getattr(times, name) for name in StepTimes.__struct_fields__}
    total = sum(seconds.values()) or 1.0
    return ", ".join(f"{name} {value / total:.0%}" for name, value in seconds.items())
