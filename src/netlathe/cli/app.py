"""The `netlathe` command: its parts, and how errors end it."""

from __future__ import annotations

import functools
import inspect
import os
import shlex
import signal
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from netlathe.archspace.errors import NetlatheError
from netlathe.cli.completions import asked_for, completed
from netlathe.cli.console import Terminal, fail
from netlathe.cli.options import LogFile, Quiet, Verbose
from netlathe.cli.speech import speaking
from netlathe.runs.stopping import ENDINGS

Command = Callable[..., None]

COMMANDS = {
    "demo": "commands", "devices": "commands", "profile": "profile", "fit": "fit",
    "predict": "predict", "search": "search", "compress": "compress", "export": "commands",
    "time": "time", "show": "show", "check": "check", "pareto": "compare", "compare": "compare",
    "report": "report", "predictors": "predictors", "recipes": "recipes",
}  # fmt: skip
"""Modules of the commands, by name, in the order of the help."""
KEPT = {
    "profile": "what was measured is kept, and the same command goes on from there",
    "demo": "what was measured and searched is kept; the same command goes on from there",
    "search": "what was searched and trained up to the last checkpoint is kept; the same command goes on from there",
    "compress": "what was found and trained up to the last checkpoint is kept; the same command goes on from there",
    "report": "a page that is there is whole",
    "time": "there were fewer than three rounds, too few for a time",
}
"""Words on what an interrupted command leaves, by command."""

FAILED = {"check": 2}
"""Exit codes of a command that met an expected error, where it is not 1: that of a check means that it failed."""


class Speaking(NamedTuple):
    """The options on what is said, as they were given."""

    quiet: bool = False
    verbose: bool = False
    log_file: Path | None = None


def make_app(*, debug: bool = False, only: str = "") -> typer.Typer:
    """The command line; with `debug`, errors keep their traceback. Where it is known which command is asked for, `only`
    it is made: making the others takes longer than a prediction."""
    asked = asked_for()
    only = only if asked is None else asked
    app = typer.Typer(
        name="netlathe",
        help="Shapes convolutional networks to the hardware they will run on.",
        no_args_is_help=True,
        add_completion=asked is not None or only not in COMMANDS,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    for name in [only] if only in COMMANDS else COMMANDS:
        command = _command(COMMANDS[name], name)
        app.command()(_finished(command, debug=debug))
    if only not in COMMANDS:
        clean = _command("commands", "clean")
        device = typer.Typer(help="Put a phone in order after an interrupted profile.", no_args_is_help=True)
        device.command()(_finished(clean, debug=debug))
        app.add_typer(device, name="device")
    return app


def _command(module: str, name: str) -> Command:
    command: Command = getattr(import_module(f"netlathe.cli.{module}"), name)
    return command


def _finished(command: Command, *, debug: bool) -> Command:
    """A command with all that every command has."""
    spoken = _spoken(command)
    return _at_home(spoken if debug else _guarded(spoken))


def _spoken(command: Command) -> Command:
    """The command with --quiet, --verbose and --log-file; they may stand before its name, too."""

    @functools.wraps(command)
    def run(*, context: typer.Context, quiet: bool, verbose: bool, log_file: Path | None, **options: object) -> None:
        before: Speaking = context.obj or Speaking()
        with speaking(
            is_quiet=quiet or before.quiet, is_verbose=verbose or before.verbose,
            log_file=log_file or before.log_file, command=Terminal.command,
        ):  # fmt: skip
            command(**options)

    own = inspect.signature(command, eval_str=True)
    if asked_for() is not None:
        own = completed(own, command.__name__)
    parameters = [*own.parameters.values(), *_SPEAKING]
    run.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    return run


_SPEAKING = [
    inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
    for name, annotation, default in (
        ("context", typer.Context, inspect.Parameter.empty),
        ("quiet", Quiet, False), ("verbose", Verbose, False), ("log_file", LogFile, None),
    )
]  # fmt: skip
"""Parameters that every command gets."""


def _at_home(command: Command) -> Command:
    """Arguments with the home folder in place of a `~` that begins one: shells leave it in --output=~/x."""

    @functools.wraps(command)
    def run(**options: object) -> None:
        command(**{name: _expanded(value) for name, value in options.items()})

    return run


def _expanded(value: object) -> object:
    if isinstance(value, Path):
        return Path(os.path.expanduser(value))
    if isinstance(value, str):
        return os.path.expanduser(value) if value.startswith("~") else value
    return [_expanded(one) for one in value] if isinstance(value, list) else value


def _guarded(command: Command) -> Command:
    """Ends with one paragraph and exit code 1 (FAILED) on an expected error, 130 on an interrupt. What is not expected
    is a bug and keeps its traceback."""

    @functools.wraps(command)
    def run(*args: object, **options: object) -> None:
        as_json = bool(options.get("as_json")) or options.get("json_file") == "-"
        try:
            command(*args, **options)
        except (NetlatheError, OSError, EOFError, MemoryError) as error:  # the system's own: a full disk, a folder
            if not (isinstance(error, NetlatheError) and error.is_told_elsewhere):
                fail(error, as_json=as_json, kind=type(error).__name__)
            raise typer.Exit(FAILED.get(command.__name__, 1)) from None
        except KeyboardInterrupt:
            fail(
                f"interrupted; {KEPT.get(command.__name__, 'nothing was written')}", as_json=as_json, kind="Interrupted"
            )
            raise typer.Exit(130) from None

    return run


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"netlathe {version('netlathe')}")
        raise typer.Exit


def _options(
    context: typer.Context,
    quiet: Quiet = False,
    verbose: Verbose = False,
    log_file: LogFile = None,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error; may stand anywhere on the line.")
    ] = False,
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Shapes convolutional networks to the hardware they will run on: profile, fit, predict, search, export."""
    context.obj = Speaking(quiet, verbose, log_file and Path(os.path.expanduser(log_file)))


def main() -> None:
    """See netlathe.cli.main."""
    for ending in ENDINGS:  # as Ctrl-C: a phone is restored on the way out
        if signal.getsignal(ending) is not signal.SIG_IGN:  # as under nohup
            signal.signal(ending, signal.default_int_handler)
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    Terminal.command = shlex.join(["netlathe", *arguments])
    make_app(debug="--debug" in sys.argv[1:], only=next(iter(arguments), ""))(arguments)
