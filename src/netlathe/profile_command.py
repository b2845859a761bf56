"""`netlathe profile`: its options."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from netlathe.archspace.errors import NetlatheError
from netlathe.console import Terminal
from netlathe.options import Classes, Device, Force, Json, Resolution, Seed, Space, Width

NETWORKS = 12
QUICK_BLOCKS, QUICK_NETWORKS = 10, 3
"""Enough to adapt to one device what is known of others."""


def profile(
    output: Annotated[Path, typer.Option(help="Profile file (SQLite); an existing one is continued.")],
    space: Space = "tiny",
    device: Device = ("local",),  # type: ignore[assignment]
    benchmark_binary: Annotated[
        Path | None, typer.Option(help="benchmark_model for the phone, instead of the official one.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of the runtime.")] = 1,
    cores: Annotated[str, typer.Option(help="Cores to run on: big, mid, little, all or a hexadecimal mask.")] = "",
    dtype: Annotated[
        Literal["float32", "int8", "float16"] | None, typer.Option(help="float32 by default, float16 on cuda.")
    ] = None,
    delegate: Annotated[Literal["cpu", "gpu", "nnapi"], typer.Option(help="What runs the blocks on a phone.")] = "cpu",
    xnnpack: Annotated[bool, typer.Option(help="XNNPACK on a phone's CPU.")] = True,
    batch: Annotated[int | None, typer.Option(min=1, help="Images per inference; 1, on cuda 8.")] = None,
    budget: Annotated[
        int | None, typer.Option(min=1, help="Measure so many new blocks: those that teach a predictor most.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="A first look: --budget 10 --networks 3, where they are not given.")
    ] = False,
    networks: Annotated[
        int | None, typer.Option(min=0, help="Whole networks to time as well.", show_default="12, with --quick 3")
    ] = None,
    again: Annotated[
        Literal["unstable", "failed"] | None,
        typer.Option(
            help="Measure again, instead of the space, what the profile holds: records whose rounds disagree, or what "
            "failed or was unsupported."
        ),
    ] = None,
    budget_s: Annotated[float | None, typer.Option(min=1, help="Stop after so many seconds.")] = None,
    rounds: Annotated[int | None, typer.Option(min=3, help="Rounds that a graph gets at most.")] = None,
    max_thermal_status: Annotated[
        int, typer.Option(min=0, help="Android's thermal status up to which a round on a phone counts.")
    ] = 0,
    op_profile: Annotated[bool, typer.Option("--op-profile", help="Also time each kernel (phones).")] = False,
    export: Annotated[
        Path | None,
        typer.Option(help="Also write the records as .csv or .parquet; an earlier table of records is replaced."),
    ] = None,
    force: Force = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be measured, and stop.")] = False,
    resolution: Resolution = None,
    width: Width = None,
    classes: Classes = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Time the blocks of a search space, all or those that teach most, and some whole networks, on a device or several
    side by side."""
    from netlathe.archspace.presets import load_space
    from netlathe.phones import choose_phone
    from netlathe.profiler.devices import DeviceOptions
    from netlathe.profiling import Job, profile_space

    if again and (budget or quick):
        raise NetlatheError(f"--again {again} measures no new blocks; leave out {'--budget' if budget else '--quick'}")
    if not dry_run:
        _check_files(output, export, [space, *([benchmark_binary] if benchmark_binary else ())], force=force)
    chosen = load_space(space, resolution=resolution, width=width, classes=classes)
    options = DeviceOptions(
        threads=threads, batch=batch, cores=cores, dtype=dtype, delegate=delegate, xnnpack=xnnpack,
        benchmark_binary=benchmark_binary, max_thermal_status=max_thermal_status,
    )  # fmt: skip
    default_blocks, default_networks = (QUICK_BLOCKS, QUICK_NETWORKS) if quick else (None, NETWORKS)
    job = Job(
        chosen, output, default_networks if networks is None else networks, seed,
        blocks=budget or default_blocks, budget_s=budget_s, max_rounds=rounds, op_profile=op_profile,
        again=again,
    )  # fmt: skip
    terminal = Terminal(as_json=as_json)
    devices = [choose_phone(one, terminal) for one in device]
    complete = profile_space(job, devices, options, dry_run=dry_run, table=export, terminal=terminal)
    if not complete or terminal.undone:
        raise typer.Exit(1)


def _check_files(output: Path, export: Path | None, inputs: Sequence[str | Path], *, force: bool) -> None:
    """A profile is continued, never replaced; only the table that it is exported to may be."""
    from netlathe.archspace.tables import TABLE_ENDINGS, check_table_path
    from netlathe.outputs import Output, OutputError, check_outputs

    if output.suffix in TABLE_ENDINGS:
        raise OutputError(
            f"--output {output}: a profile is no {output.suffix}; call it .sqlite, and write the table with --export"
        )
    profile = Output("--output", output, "profile")
    check_outputs([profile], inputs)
    if export:
        check_table_path(export)
        check_outputs([profile, Output("--export", export, "records")], inputs, force=force)
