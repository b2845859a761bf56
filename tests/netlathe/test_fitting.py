"""`netlathe fit`: what it prints, of which records, and what it warns of."""

from __future__ import annotations

import json
from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from netlathe.archspace.graph import Graph
from netlathe.archspace.ops import Conv2d
from netlathe.archspace.presets import tiny
from netlathe.archspace.profile_file import ProfileFile
from netlathe.archspace.records import LatencyRecord, Measurement, Round, Setup, Status
from netlathe.archspace.tables import write_table
from netlathe.cli.app import make_app
from netlathe.fitting import FitReport, fit_warnings, known_devices
from netlathe.predictor import CrossValidation, KernelTimes, LatencyPredictor, Prior, kernels_of
from netlathe.predictor.validation.metrics import LEVELS, Predictions
from netlathe.words import first_names

SETUP = Setup("bench", "soc", "linux", "litert", "2.3.0", "xnnpack")
SPACE = tiny(16)
BLOCKS = [(block.name, block.graph()) for block in SPACE.distinct_blocks()]


def latency_ms(graph: Graph) -> float:
    """A device that computes 5 GMAC/s, moves 10 GB/s and needs 10 us to begin with."""
    return 0.01 + graph.macs / 5e6 + (graph.bytes_read() + graph.bytes_written()) / 1e7


def record(name: str, graph: Graph, kind: str = "block", noise: Sequence[float] = (1.0,) * 4) -> LatencyRecord:
    rounds = tuple(Round((latency_ms(graph) * factor,)) for factor in noise)
    return LatencyRecord(name, kind, graph, SETUP, Status.OK, Measurement(rounds))  # type: ignore[arg-type]


def blocks(count: int, noise: Sequence[float] = (1.0,) * 4) -> list[LatencyRecord]:
    spread = np.random.default_rng(0).permutation(len(BLOCKS))[:count]
    return [record(*BLOCKS[i], noise=noise) for i in spread]


def networks(count: int) -> list[LatencyRecord]:
    return [record(a.name, a.graph(), "network") for a in SPACE.sample_over_macs(count, seed=0)]


def fit(path: Path, *words: object) -> Result:
    output = path.with_name("m.json")
    return CliRunner().invoke(make_app(only="fit"), ["fit", str(path), "--output", str(output), *map(str, words)])


def answer(path: Path, *words: object) -> dict[str, Any]:
    result = fit(path, "--residual", "none", *words, "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return found


def refusal(path: Path, *words: object) -> str:
    result = fit(path, *words)
    assert result.exit_code == 1, result.output
    assert not path.with_name("m.json").exists()
    return " ".join(result.stderr.partition("Error: ")[2].split())


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("records") / "records.parquet"
    write_table([*blocks(93), *networks(8)], path)
    return path


def test_the_table_of_errors_has_a_row_per_split_and_per_kind_of_block(table: Path) -> None:
    result = fit(table, "--residual", "none")
    lines = [line for line in result.stdout.splitlines() if line.strip()]
    labels = [line[:40].strip() for line in lines]
    assert labels == [
        "held out", "blocks, by configuration", "conv k1", "mbconv k3", "mbconv k5", "mbconv k7",
        "blocks of a kernel size left out", "blocks of a stage left out", "blocks on larger inputs than fitted on",
        "networks",
    ]  # fmt: skip
    assert " ".join(lines[0].split()) == "held out n MAPE within 5 % within 10 % Spearman in 90 % interval"
    assert "Noise floor" in result.stderr
    assert "Network = " in result.stderr
    assert "Fitted, but not in every row" in result.stderr  # the only stem, the only head


def test_the_json_holds_what_the_table_shows(table: Path) -> None:
    found = answer(table)
    assert set(found["splits"]) == {"configuration", "kernel", "stage", "larger", "network"}
    assert found["blocks"] == found["splits"]["configuration"]
    assert found["networks"]["n"] == 8
    assert sum(kind["n"] for kind in found["kinds"].values()) == found["blocks"]["n"]
    assert "measured twice" in found["not_held_out"]["random"]
    assert found["noise_floor"] == 0
    json.loads(json.dumps(found, allow_nan=False))


def test_one_split_is_enough_for_those_in_a_hurry_and_the_plot_is_written_where_asked(
    table: Path, tmp_path: Path
) -> None:
    found = answer(table, "--splits", "configuration", "--plot", tmp_path / "new" / "p.png")
    assert set(found["splits"]) == {"configuration", "network"}
    assert (tmp_path / "new" / "p.png").read_bytes()[:4] == b"\x89PNG"


def test_where_nothing_can_be_drawn_the_predictor_is_written_all_the_same(tmp_path: Path) -> None:
    write_table(blocks(3), tmp_path / "few.csv")
    found = answer(tmp_path / "few.csv", "--splits", "configuration", "--plot", tmp_path / "p.png")
    assert "nothing to draw" in found["warnings"][-1]
    assert LatencyPredictor.load(tmp_path / "m.json").n_blocks_ == 3
    assert not (tmp_path / "p.png").exists()


def test_int8_setups_fit_as_others_do(tmp_path: Path) -> None:
    int8 = replace(SETUP, dtype="int8")
    write_table([replace(r, setup=int8) for r in blocks(40)] + blocks(20), tmp_path / "both.parquet")
    found = answer(tmp_path / "both.parquet", "--setup", int8.key[:8], "--splits", "configuration")
    assert found["setup"]["dtype"] == "int8"
    (tmp_path / "m.json").unlink()
    message = refusal(tmp_path / "both.parquet")
    assert "choose one of its setups with --setup" in message
    assert "int8" in message


def test_a_foreign_table_of_configurations_is_fitted(tmp_path: Path) -> None:
    found, path = blocks(60), tmp_path / "foreign.csv"
    rows = pd.DataFrame({"block": [r.name for r in found], "p_ms": [r.latency_ms for r in found], "device": "p"})
    rows.to_csv(path, index=False)
    told = answer(path, "--latency-column", "p_ms", "--splits", "configuration")
    assert told["setup"]["device"] == "p"
    assert told["blocks"]["n"] + len(told["not_predicted"]) == 60
    assert any("the table does not tell processor" in warning for warning in told["warnings"])
    path.with_name("m.json").unlink()
    message = refusal(path)
    assert "there is no column 'latency_ms'" in message
    assert "--latency-column (p_ms)" in message


def test_rows_without_a_latency_are_counted_and_the_first_is_named(tmp_path: Path) -> None:
    found, path = blocks(60), tmp_path / "foreign.csv"
    rows = pd.DataFrame({"block": [r.name for r in found], "latency_ms": [str(r.latency_ms) for r in found]})
    rows.loc[[3, 9, 20, 21, 40, 59], "latency_ms"] = ["fast", "0", "-1", "", "inf", "nan"]
    rows.to_csv(path, index=False)
    told = answer(path, "--splits", "configuration", "--residual", "none")
    (warning,) = (warning for warning in told["warnings"] if "hold no latency" in warning)
    assert warning.startswith("6 of 60 records hold no latency and were left out, the first of them ")
    assert f"{found[3].name} (row 3) (the table says 'fast', and no number)" in warning


def test_three_blocks_are_fitted_with_a_warning_that_their_errors_are_unknown(tmp_path: Path) -> None:
    write_table(blocks(3), tmp_path / "three.csv")
    result = fit(tmp_path / "three.csv", "--residual", "none")
    assert result.exit_code == 0
    assert "errors are unknown" in " ".join(result.stderr.split())
    assert "held out" not in result.stdout
    assert "too little is measured" in " ".join(answer(tmp_path / "three.csv")["warnings"])


def test_two_blocks_are_too_few(tmp_path: Path) -> None:
    write_table(blocks(2), tmp_path / "two.csv")
    assert "2 different blocks are measured, at least 3 are needed" in refusal(tmp_path / "two.csv")


def test_a_profile_of_a_similar_device_helps_where_little_is_measured(table: Path, tmp_path: Path) -> None:
    few = [replace(r, setup=replace(SETUP, device="new")) for r in blocks(10)]
    write_table(few, tmp_path / "few.parquet")
    found = answer(tmp_path / "few.parquet", "--like", table, "--splits", "configuration")
    assert found["residual"] == "few-shot"
    assert found["blocks"]["within_10"] == 1
    assert LatencyPredictor.load(tmp_path / "m.json").setup_.device == "new"


def test_each_setup_of_a_similar_devices_profile_is_a_known_device(tmp_path: Path) -> None:
    path, other = tmp_path / "two.parquet", replace(SETUP, threads=4)
    write_table([*blocks(20), *(replace(r, setup=other) for r in blocks(30))], path)
    prior = known_devices([path], "latency_ms", few_shot=False, fitted=(tmp_path / "new.csv", ""))
    assert isinstance(prior, Prior)
    assert prior.devices == (f"{path} {SETUP.key[:8]}", f"{path} {other.key[:8]}")
    assert len(prior.keys) == 30


def test_what_is_fitted_is_no_known_device_of_its_own(tmp_path: Path) -> None:
    path, other = tmp_path / "two.parquet", replace(SETUP, threads=4)
    write_table([*blocks(20), *(replace(r, setup=other) for r in blocks(20))], path)
    prior = known_devices([path], "latency_ms", few_shot=False, fitted=(path, SETUP.key[:6]))
    assert isinstance(prior, Prior)
    assert prior.devices == (f"{path} {other.key[:8]}",)
    assert "holds nothing beside what is fitted" in refusal(path, "--like", path)


def test_a_similar_devices_table_is_read_by_the_column_that_is_named(tmp_path: Path) -> None:
    for device, count in (("old", 40), ("new", 10)):
        found = blocks(count)
        rows = pd.DataFrame({"block": [r.name for r in found], "p_ms": [r.latency_ms for r in found], "device": device})
        rows.to_csv(tmp_path / f"{device}.csv", index=False)
    words = ("--like", tmp_path / "old.csv", "--latency-column", "p_ms", "--splits", "configuration")
    assert answer(tmp_path / "new.csv", *words)["residual"] == "few-shot"


def test_known_devices_that_do_not_serve_are_told(tmp_path: Path) -> None:
    convs = [record(name, graph) for name, graph in BLOCKS if name.startswith("conv")]
    write_table(convs, tmp_path / "convs.parquet")
    write_table(blocks(20), tmp_path / "few.parquet")
    found = answer(tmp_path / "few.parquet", "--like", tmp_path / "convs.parquet", "--splits", "configuration")
    assert found["residual"] == "none"
    assert any(warning.startswith("the known devices do not serve here") for warning in found["warnings"])
    assert any(warning.startswith("only 20 blocks") for warning in found["warnings"])
    assert any(warning.startswith("no whole networks were measured") for warning in found["warnings"])


@cache
def usual_model() -> LatencyPredictor:
    return LatencyPredictor("none").fit([*blocks(93), *networks(3)])


def judged(measured_over_predicted: Sequence[float], half_width: float = 0.1, **changes: Any) -> list[str]:
    """The warnings where cross-validation by configuration found this."""
    n = len(measured_over_predicted)
    points = Predictions(
        ("b",) * n, ("mbconv k3",) * n, np.array(measured_over_predicted), np.ones(n),
        np.full((n, len(LEVELS)), half_width),
    )  # fmt: skip
    found: dict[str, Any] = {
        "setup": SETUP, "splits": {"configuration": points}, "impossible": {}, "not_predicted": (), "unsteady": (),
        "noise_floor": 0.01,
    }  # fmt: skip
    model = copy(usual_model())
    model.n_blocks_ = n
    return fit_warnings(FitReport(model, [], CrossValidation(**{**found, **changes})))


GOOD = [1.05] * 91 + [1.2] * 9


def test_a_good_fit_warns_of_nothing() -> None:
    assert judged(GOOD) == []


@pytest.mark.parametrize(
    ("ratios", "changes", "warning"),
    [
        ([1.05] * 9 + [1.2], {}, "only 10 blocks; about 100 make a good predictor"),
        (GOOD, {"noise_floor": 0.08}, "measurements differ by 8.0 % between their own halves"),
        (GOOD, {"unsteady": ("a", "b")}, "the measurements of a, b disagree with themselves"),
        ([1.05] * 70 + [1.2] * 30, {}, "90 % intervals hold 70 % of blocks, by configuration; they are too narrow"),
        (
            [1.05] * 100,
            {},
            "90 % intervals hold 100 % of blocks, by configuration; they are wider than they need to be: ask for",
        ),
    ],
)
def test_a_poor_fit_is_warned_of_in_words(ratios: list[float], changes: dict[str, Any], warning: str) -> None:
    (found,) = judged(ratios, **changes)
    assert found.startswith(warning)


def test_times_that_belong_to_no_kernel_are_told_with_a_remedy() -> None:
    validation = CrossValidation(SETUP, {}, {}, (), (), 0.01)
    found = fit_warnings(FitReport(usual_model(), [], validation, KernelTimes([], ["a: b", "c: d"])))
    assert found[-1].startswith("2 times of the runtime's table belong to no kernel")
    assert found[-1].endswith("(a: b, c: d): if they matter, fit without --kernels")


def test_chance_is_no_reason_to_warn_of_intervals() -> None:
    assert not any("intervals" in warning for warning in judged([1.05] * 10))


def test_wide_intervals_far_from_the_records_are_as_they_should_be() -> None:
    points = Predictions(("b",) * 99, ("x",) * 99, np.ones(99), np.ones(99), np.ones((99, len(LEVELS))))
    assert judged(GOOD, splits={"kernel": points}) == []


def test_a_long_list_of_names_is_cut() -> None:
    assert first_names(["a", "b"]) == "a, b"
    assert first_names(list("abcdefgh")) == "a, b, c, d, e and 3 more"


def test_a_profile_without_times_of_kernels_says_how_to_get_them(tmp_path: Path) -> None:
    path = tmp_path / "p.sqlite"
    ProfileFile(path, create=True).close()
    assert "--op-profile" in refusal(path, "--kernels")


def op_rows(graph: Graph) -> list[dict[str, Any]]:
    """What a delegate prints of a graph's kernels, each with its share of the whole."""
    types = {"conv": "CONV_2D", "fully_connected": "FULLY_CONNECTED", "global_avg_pool": "MEAN", "add": "ADD"}
    kernels = kernels_of(graph)
    total_ms = sum(latency_ms(kernel) for kernel in kernels)
    rows = []
    for kernel in kernels:
        op = kernel.nodes[0].op
        depthwise = isinstance(op, Conv2d) and op.is_depthwise(kernel.inputs[0])
        node_type = "DEPTHWISE_CONV_2D" if depthwise else types[op.kind]
        share = latency_ms(kernel) / total_ms
        rows.append({"node_type": node_type, "name": f"Delegate/{node_type}:0", "share": share, "times_called": 1})
    return rows


@pytest.mark.parametrize("with_blocks", [True, False])
def test_no_network_is_held_out_from_kernels_timed_inside_it(tmp_path: Path, with_blocks: bool) -> None:
    path, measured = tmp_path / "p.sqlite", [*blocks(93), *networks(6)]
    with ProfileFile(path, create=True) as file:
        file.add_records(measured)
        for one in measured:
            if with_blocks or one.kind == "network":
                file.set_op_times(SETUP, one.graph.key, op_rows(one.graph))
    found = answer(path, "--kernels", "--splits", "configuration")
    inside = [warning for warning in found["warnings"] if warning.startswith("kernels were timed inside")]
    assert ("network" in found["splits"]) is with_blocks
    assert ("network" in found["not_held_out"]) is not with_blocks
    assert len(inside) == (0 if with_blocks else 1)
