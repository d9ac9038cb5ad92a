"""The options that several commands share, each declared once; a command takes them a group at a time.

``settings`` merges what was given here with a file and the environment, so every one defaults to None:
"not given". What then holds is said in words.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

import typer
from typer.models import OptionInfo

from mlless.job import Compression, MergeRule

_MODEL = "What to train"
_SYNC = "Workers and what they exchange"
_STOP = "When to stop: whichever comes first"
_MONEY = "What it costs"
_WHERE = "Where it runs"

ConfigFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Settings in TOML; these options go over it.",
        show_default="MLLESS_CONFIG, or mlless.toml if it is here",
        rich_help_panel=_WHERE,
    ),
]


@dataclass(frozen=True, kw_only=True)
class Training:
    """The settings of ``recipes.Wishes``: what to train and when to stop."""

    model: Annotated[
        Literal["mf", "lr"] | None,
        typer.Option(
            help="Matrix factorisation of ratings, or logistic regression on clicks.",
            show_default="follows from the data set",
            rich_help_panel=_MODEL,
        ),
    ] = None
    factors: Annotated[
        int | None, typer.Option(help="Factors of mf.", show_default="20", rich_help_panel=_MODEL)
    ] = None
    optimizer: Annotated[
        Literal["adagrad", "nesterov"] | None,
        typer.Option(help="How to step.", show_default="adagrad", rich_help_panel=_MODEL),
    ] = None
    learning_rate: Annotated[
        float | None,
        typer.Option(help="Its learning rate.", show_default="0.1 with adagrad", rich_help_panel=_MODEL),
    ] = None
    l2: Annotated[
        float | None,
        typer.Option(
            "--l2",
            help="Strength of L2 regularisation.",
            show_default="0.06 for mf, 8 / rows for lr",
            rich_help_panel=_MODEL,
        ),
    ] = None
    seed: Annotated[
        int | None,
        typer.Option(
            help="Decides the start and the order of mini-batches.", show_default="0", rich_help_panel=_MODEL
        ),
    ] = None
    workers: Annotated[
        int | None, typer.Option(help="Worker functions.", show_default="4", rich_help_panel=_SYNC)
    ] = None
    sync: Annotated[
        Literal["bsp", "isp"] | None,
        typer.Option(
            help="bsp: publish every change; isp: only the significant ones.",
            show_default="isp",
            rich_help_panel=_SYNC,
        ),
    ] = None
    significance: Annotated[
        float | None,
        typer.Option(
            help="ISP's threshold v: 0 publishes every change.",
            show_default="0.7 for mf, 0.35 for lr",
            rich_help_panel=_SYNC,
        ),
    ] = None
    merge: Annotated[
        MergeRule | None,
        typer.Option(
            help="How updates are put together.",
            show_default="follows from model and optimizer",
            rich_help_panel=_SYNC,
        ),
    ] = None
    compression: Annotated[
        Compression | None,
        typer.Option(
            help="Of updates: zstd saves a tenth to a fifth of the bytes, and costs time.",
            show_default="none",
            rich_help_panel=_SYNC,
        ),
    ] = None
    epochs: Annotated[
        int | None,
        typer.Option(
            help="Passes over the data.", show_default="at most 30 for mf, 20 for lr", rich_help_panel=_STOP
        ),
    ] = None
    patience: Annotated[
        int | None,
        typer.Option(
            help="Evaluations in a row without a new best.",
            show_default="3 for mf, 2 for lr; none with --epochs",
            rich_help_panel=_STOP,
        ),
    ] = None
    target: Annotated[
        str | None,
        typer.Option(
            metavar="METRIC=VALUE",
            help="train_loss, or held-out rmse, log_loss, auc: as in rmse=0.87.",
            show_default="none",
            rich_help_panel=_STOP,
        ),
    ] = None
    max_time: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="How long it may take, the ending included.",
            show_default="none",
            rich_help_panel=_STOP,
        ),
    ] = None
    max_cost: Annotated[
        float | None,
        typer.Option(
            metavar="DOLLARS",
            help="What it may cost by --tariff, the ending included.",
            show_default="none",
            rich_help_panel=_STOP,
        ),
    ] = None
    tariff: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Prices to meter by, wherever it runs: one of mlless tariff, or a TOML file.",
            show_default="none",
            rich_help_panel=_MONEY,
        ),
    ] = None
    tuner: Annotated[
        Literal["off", "published", "economy"] | None,
        typer.Option(
            help="Lets workers go: once the loss no longer needs them, or so that the rest costs the least.",
            show_default="off",
            rich_help_panel=_MONEY,
        ),
    ] = None
    min_workers: Annotated[
        int | None,
        typer.Option(help="How many the tuner keeps at least.", show_default="1", rich_help_panel=_MONEY),
    ] = None


@dataclass(frozen=True, kw_only=True)
class Place:
    """The settings of ``deployment.Deployment``: where functions run, and where they meet."""

    store: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Redis or Valkey for updates, or several: redis://HOST:6379.",
            show_default="embedded: files of this machine",
            rich_help_panel=_WHERE,
        ),
    ] = None
    bus: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Redis or RabbitMQ for messages: amqp://HOST.",
            show_default="the first server of the store",
            rich_help_panel=_WHERE,
        ),
    ] = None
    runtime: Annotated[
        Literal["processes", "lithops"] | None,
        typer.Option(
            help="Processes of this machine, or cloud functions by Lithops' own configuration.",
            show_default="processes",
            rich_help_panel=_WHERE,
        ),
    ] = None
    memory: Annotated[
        int | None,
        typer.Option(
            metavar="MB",
            help="Memory of a function.",
            show_default="what the runtime gives",
            rich_help_panel=_WHERE,
        ),
    ] = None
    time_limit: Annotated[
        int | None,
        typer.Option(
            metavar="SECONDS",
            help="Time after which a function is ended.",
            show_default="what the runtime gives",
            rich_help_panel=_WHERE,
        ),
    ] = None


_GROUPS: tuple[type[Training | Place], ...] = Training, Place


def given(group: Training | Place) -> dict[str, object]:
    """Return the options of a group that were given, by name."""
    return {name: value for name, value in asdict(group).items() if value is not None}


def unless_given(name: str) -> str:
    """Return in words what holds where the option ``name`` is not given."""
    declared = next(hints[name] for group in _GROUPS if name in (hints := _options(group)))
    option = next(one for one in get_args(declared) if isinstance(one, OptionInfo))
    return str(option.show_default)


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """Return ``command`` with an option for each field of the groups among its parameters.

    So typer sees every option, and the command gets them as one value a group.
    """
    hints = get_type_hints(command, include_extras=True)
    groups = {name: kind for name, kind in hints.items() if kind in _GROUPS}
    parameters = []
    for parameter in inspect.signature(command).parameters.values():
        options = (
            _options(groups[parameter.name])
            if parameter.name in groups
            else {parameter.name: hints[parameter.name]}
        )
        parameters += [
            parameter.replace(
                name=name,
                kind=inspect.Parameter.KEYWORD_ONLY,
                annotation=annotation,
                default=None if parameter.name in groups else parameter.default,
            )
            for name, annotation in options.items()
        ]

    @wraps(command)
    def spread_command(**options: Any) -> None:
        for name, group in groups.items():
            options[name] = group(**{field.name: options.pop(field.name) for field in fields(group)})
        command(**options)

    spread_command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    spread_command.__annotations__ = {one.name: one.annotation for one in parameters}
    return spread_command


def _options(group: type[Training | Place]) -> dict[str, Any]:
    return get_type_hints(group, include_extras=True)
