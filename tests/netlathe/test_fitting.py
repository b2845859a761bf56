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

from archspace.graph import Graph
from archspace.presets import tiny
from archspace.records import LatencyRecord, Measurement, Round, Setup, Status
from archspace.tables import write_table
from netlathe.cli import make_app
from netlathe.fitting import Fit, fit_warnings, some_of
from netlathe.stages import sample_networks
from predictor import CrossValidation, LatencyPredictor
from predictor.metrics import LEVELS, Predictions

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
    return [record(a.name, a.graph(), "network") for a in sample_networks(SPACE, count, seed=0)]


def fit(path: Path, *words: object) -> Result:
    output = path.with_name("m.json")
    return CliRunner().invoke(make_app(), ["fit", str(path), "--output", str(output), *map(str, words)])


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


def test_one_split_is_enough_for_those_in_a_hurry(table: Path) -> None:
    assert set(answer(table, "--splits", "configuration")["splits"]) == {"configuration", "network"}


def test_the_plot_is_written_where_asked(table: Path, tmp_path: Path) -> None:
    answer(table, "--splits", "configuration", "--plot", tmp_path / "new" / "p.png")
    assert (tmp_path / "new" / "p.png").read_bytes()[:4] == b"\x89PNG"


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
    assert "there is no column 'latency_ms'" in refusal(path)


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
    found = answer(tmp_path / "few.parquet", "--like", table)
    assert found["residual"] == "few-shot"
    assert found["blocks"]["within_10"] == 1
    assert LatencyPredictor.load(tmp_path / "m.json").setup_.device == "new"


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
    return fit_warnings(Fit(model, [], CrossValidation(**{**found, **changes})))


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
        ([1.05] * 100, {}, "90 % intervals hold 100 % of blocks, by configuration; they are wider than"),
    ],
)
def test_a_poor_fit_is_warned_of_in_words(ratios: list[float], changes: dict[str, Any], warning: str) -> None:
    (found,) = judged(ratios, **changes)
    assert found.startswith(warning)


def test_chance_is_no_reason_to_warn_of_intervals() -> None:
    assert not any("intervals" in warning for warning in judged([1.05] * 10))


def test_wide_intervals_far_from_the_records_are_as_they_should_be() -> None:
    points = Predictions(("b",) * 99, ("x",) * 99, np.ones(99), np.ones(99), np.ones((99, len(LEVELS))))
    assert judged(GOOD, splits={"kernel": points}) == []


def test_a_long_list_of_names_is_cut() -> None:
    assert some_of(["a", "b"]) == "a, b"
    assert some_of(list("abcdefgh")) == "a, b, c, d, e and 3 more"


def test_a_profile_without_times_of_kernels_says_how_to_get_them(tmp_path: Path) -> None:
    from archspace.profile_file import ProfileFile

    path = tmp_path / "p.sqlite"
    ProfileFile(path, create=True).close()
    assert "--op-profile" in refusal(path, "--kernels")
