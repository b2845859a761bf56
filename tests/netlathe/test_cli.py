"""The command line: what scripts rely on, and how it fails. The whole path runs for real, on the smallest images."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from typer.testing import CliRunner, Result

from netlathe.archspace.forms.tflite_reader import read_tflite
from netlathe.archspace.presets import tiny
from netlathe.archspace.records import Status
from netlathe.archspace.spaces import Architecture
from netlathe.archspace.tables import read_records, write_table
from netlathe.cli.app import make_app
from netlathe.profiler import Plan


def netlathe(*arguments: object) -> Result:
    """As `main` runs it: only the command that is asked for is made, as making all takes longer than most commands."""
    words = [str(argument) for argument in arguments]
    return CliRunner().invoke(make_app(only=words[0]), words)


def answer(*arguments: object) -> dict[str, Any]:
    """The JSON object on the last line of standard output of a command that succeeds."""
    result = netlathe(*arguments, "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return found


def refusal(*arguments: object) -> str:
    """The error of a command that fails as it should: one paragraph, exit code 1, no traceback."""
    result = netlathe(*arguments)
    assert result.exit_code == 1, result.output
    _, found, message = result.stderr.partition("Error: ")
    assert found, (result.output, result.exception)
    assert "Traceback" not in result.output
    return " ".join(message.split())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def profiled(folder: Path) -> dict[str, Any]:
    return answer(
        "profile", "--device", "local", "--space", "tiny", "--resolution", 8, "--rounds", 4, "--networks", 6,
        "--output", folder / "p.sqlite", "--export", folder / "p.csv",
    )  # fmt: skip


@pytest.fixture(scope="module")
def fitted(profiled: dict[str, Any], folder: Path) -> dict[str, Any]:
    return answer(
        "fit", folder / "p.sqlite", "--output", folder / "m.json", "--residual", "none", "--plot", folder / "p.png"
    )


@pytest.fixture(scope="module")
def searched(fitted: dict[str, Any], folder: Path) -> dict[str, Any]:
    fastest = fastest_ms(folder)
    return answer(
        "search", "--space", "tiny", "--resolution", 8, "--predictor", folder / "m.json", "--target-ms", 1.5 * fastest,
        "--data", "digits", "--output", folder / "found", "--start-epochs", 1, "--epochs", 1, "--warmup-epochs", 1,
        "--finalists", 8, "--train-epochs", 2, "--limit-images", 300,
    )  # fmt: skip


def fastest_ms(folder: Path) -> float:
    """The fastest network's latency, from the error that names it."""
    message = refusal(
        "search", "--space", "tiny", "--resolution", 8, "--predictor", folder / "m.json", "--target-ms", 1e-6,
        "--data", "digits", "--output", folder / "none", "--limit-images", 100,
    )  # fmt: skip
    assert "no network of space tiny meets 1e-06 ms of latency on m" in message
    assert not (folder / "none").exists()
    return float(message.split("the least is ")[1].split()[0])


@pytest.mark.parametrize(
    ("name", "macs", "parameters"),
    [
        ("mobilenet_v2", 300_774_272, 3_504_872),
        ("mobilenet_v2_0.5", 97_131_840, 1_968_680),
        ("proxyless_mobile", 320_427_584, 4_080_512),
        ("proxyless_cpu", 439_243_864, 4_361_648),
        ("proxyless_gpu", 465_260_160, 7_119_848),
    ],
)
def test_show_answers_the_contract(name: str, macs: int, parameters: int) -> None:
    shown = answer("show", name)
    assert shown["name"] == name
    assert shown["input_shape"] == [1, 224, 224, 3]
    assert (shown["macs"], shown["parameters"]) == (macs, parameters)
    assert sum(layer["macs"] for layer in shown["layers"]) == macs
    assert sum(layer["parameters"] for layer in shown["layers"]) == parameters


def test_show_prints_a_table_that_ends_in_the_totals() -> None:
    result = netlathe("show", "mobilenet_v2", "--kernels", "0")
    assert "300.77 M" in result.stdout.splitlines()[-1]
    assert "3,504,872" in result.stdout.splitlines()[-1]


def test_profile_measures_every_block_once_and_says_so(profiled: dict[str, Any], folder: Path) -> None:
    assert profiled["blocks"] == 93
    assert profiled["networks"] == 6
    assert (profiled["failed"], profiled["unsupported"], profiled["unfinished"]) == (0, 0, 0)
    assert profiled["setup"]["runtime"] == "litert"
    records = [r for r in read_records(folder / "p.sqlite") if r.status is Status.OK]
    assert len({r.graph.key for r in records}) == len(records) >= 99
    assert all(r.latency_ms > 0 for r in records)


def test_profile_again_measures_nothing_twice(profiled: dict[str, Any], folder: Path) -> None:
    again = answer(
        "profile", "--space", "tiny", "--resolution", 8, "--rounds", 4, "--networks", 6, "--output", folder / "p.sqlite"
    )
    assert again["reused"] == again["records"] == 99
    assert again["rounds"] == 0


def test_a_dry_run_measures_nothing(tmp_path: Path) -> None:
    forecast = answer("profile", "--space", "tiny", "--output", tmp_path / "p.sqlite", "--dry-run")
    assert forecast["new"] == 93 + 12
    assert forecast["estimate_s"] > 0
    assert not (tmp_path / "p.sqlite").exists()


def test_the_exported_table_holds_the_records(profiled: dict[str, Any], folder: Path) -> None:
    exported = {r.graph.key: r for r in read_records(folder / "p.csv")}
    for record in read_records(folder / "p.sqlite"):
        if record.graph.key in exported:
            assert exported[record.graph.key].latency_ms == pytest.approx(record.latency_ms, rel=1e-12)


def test_fit_reports_its_errors(fitted: dict[str, Any], folder: Path) -> None:
    assert fitted["blocks"]["n"] >= 93
    assert 0 < fitted["blocks"]["mape"] < 1
    assert 0 <= fitted["blocks"]["within_5"] <= fitted["blocks"]["within_10"] <= 1
    assert fitted["blocks"]["spearman"] > 0.9
    assert fitted["noise_floor"] > 0
    assert (folder / "p.png").read_bytes()[:4] == b"\x89PNG"


def test_predict_answers_the_contract(fitted: dict[str, Any], folder: Path) -> None:
    found = answer("predict", "mbconv_k3_e4_s1_c24-24_4x4_relu6", "--predictor", folder / "m.json")
    assert 0 < found["low_ms"] < found["latency_ms"] < found["high_ms"]
    wide = answer("predict", "mbconv_k3_e4_s1_c24-24_4x4_relu6", "--predictor", folder / "m.json", "--coverage", 0.99)
    assert wide["high_ms"] > found["high_ms"]


def test_show_with_a_predictor_adds_up_to_the_prediction(fitted: dict[str, Any], folder: Path) -> None:
    tiny(8).architecture([0] * 10).save(folder / "a.json")
    shown = answer("show", folder / "a.json", "--predictor", folder / "m.json")
    parts = sum(layer["predicted_ms"] for layer in shown["layers"])
    assert shown["predicted_ms"] == pytest.approx(parts + fitted["network_offset_ms"], rel=1e-6)


def test_search_meets_its_target_and_leaves_a_network_that_runs(searched: dict[str, Any], folder: Path) -> None:
    assert searched["predicted_ms"] <= searched["target_ms"]
    assert searched["test_accuracy"] == pytest.approx(searched["tflite_accuracy"], abs=1e-9)
    run = folder / "found"
    names = {p.name for p in run.iterdir()}
    assert names >= {"architecture.json", "weights.npz", "search.json", "history.csv", "network.tflite", "search.png"}
    architecture = Architecture.load(run / "architecture.json")
    assert read_tflite(run / "network.tflite").key == architecture.graph().key
    priced = answer("predict", run / "network.tflite", "--predictor", folder / "m.json")
    assert priced["latency_ms"] == pytest.approx(searched["predicted_ms"], rel=1e-9)


@pytest.mark.parametrize("form", ["tflite", "onnx"])
def test_export_writes_the_trained_network(searched: dict[str, Any], folder: Path, form: str, tmp_path: Path) -> None:
    file = tmp_path / f"network.{form}"
    exported = answer("export", folder / "found", "--format", form, "--output", file)
    assert exported["bytes"] == file.stat().st_size
    if form == "tflite":
        assert file.read_bytes() == (folder / "found" / "network.tflite").read_bytes()
    else:
        session = onnxruntime.InferenceSession(str(file))
        (logits,) = session.run(None, {session.get_inputs()[0].name: np.zeros((1, 3, 8, 8), np.float32)})
        assert logits.shape == (1, 10)


def test_devices_lists_this_machine() -> None:
    rows = {row["name"]: row for row in answer("devices", "--check")["devices"]}
    assert rows["local"]["state"] == "ready"
    assert set(rows) >= {"local", "onnxruntime", "cuda"}


def test_an_error_is_also_json_for_machines() -> None:
    result = netlathe("show", "resnet_51", "--json")
    assert result.exit_code == 1
    error = json.loads(result.stdout.splitlines()[-1])["error"]
    assert error["type"] == "SpaceError"
    assert "mobilenet_v2" in error["message"]


def test_wrong_usage_exits_with_2() -> None:
    assert netlathe("profile").exit_code == 2
    assert netlathe("nonsense").exit_code == 2


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("mbconv_k3", "unknown block name 'mbconv_k3'"),
        ("mbconv_k4_e6_s1_c8-8_8x8_relu6", "kernel must be odd"),
        ("mbconv_k3_e6_s1_c0-8_8x8_relu6", "cin must be an integer from 1 to 2^31 - 1, got 0"),
        ("alexnet", "unknown network 'alexnet'"),
        ("missing.tflite", "there is no such file"),
        ("corrupt.tflite", "corrupt.tflite"),
        ("corrupt.onnx", "corrupt.onnx"),
        ("text.json", "cannot be read as JSON"),
        ("other.txt", "expected an architecture"),
        ("", "unknown network ''"),
    ],
)
def test_showing_what_cannot_be_shown_is_one_clear_error(tmp_path: Path, what: str, message: str) -> None:
    for name in ("corrupt.tflite", "corrupt.onnx", "text.json", "other.txt"):
        (tmp_path / name).write_bytes(b"\x1c\x00\x00\x00TFL3 but not really")
    (tmp_path / "empty").mkdir()
    path = tmp_path / what
    assert message in refusal("show", path if what and (path.exists() or "." in what) else what)


def test_showing_a_folder_that_is_no_run_says_so(tmp_path: Path) -> None:
    assert "this folder is not a run's" in refusal("show", tmp_path)


def test_files_that_are_not_profiles_are_refused(tmp_path: Path) -> None:
    foreign = tmp_path / "f.sqlite"
    foreign.write_text("hello")
    assert "f.sqlite" in refusal("fit", foreign, "--output", tmp_path / "m.json")
    assert "no such" in refusal("fit", tmp_path / "none.sqlite", "--output", tmp_path / "m.json")
    assert not (tmp_path / "m.json").exists()


def test_too_few_records_to_fit_say_how_many_are_needed(profiled: dict[str, Any], folder: Path, tmp_path: Path) -> None:
    blocks = [r for r in read_records(folder / "p.sqlite") if r.kind == "block"]
    write_table(blocks[:2], tmp_path / "two.csv")
    message = refusal("fit", tmp_path / "two.csv", "--output", tmp_path / "m.json")
    assert "2 different blocks are measured, at least 3 are needed" in message


def test_profiles_of_unlike_setups_do_not_mix(profiled: dict[str, Any], folder: Path, tmp_path: Path) -> None:
    records = [r for r in read_records(folder / "p.sqlite") if r.kind == "block"]
    other = [replace(r, setup=replace(r.setup, threads=2)) for r in records]
    write_table([*records, *other], tmp_path / "mixed.parquet")
    message = refusal("fit", tmp_path / "mixed.parquet", "--output", tmp_path / "m.json")
    assert "choose one of its setups" in message
    assert "1 thread," in message
    assert "2 threads," in message
    chosen = answer(
        "fit", tmp_path / "mixed.parquet", "--output", tmp_path / "m.json", "--residual", "none",
        "--setup", other[0].setup.key[:8],
    )  # fmt: skip
    assert chosen["setup"]["threads"] == 2
    assert "no setup's key begins with 'zz'" in refusal(
        "fit", tmp_path / "mixed.parquet", "--output", tmp_path / "m.json", "--setup", "zz"
    )


def test_a_predictor_file_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text('{"schema": "netlathe.space/1"}')
    assert "expected a netlathe predictor" in refusal("predict", "mobilenet_v2", "--predictor", tmp_path / "m.json")


def test_a_folder_without_images_is_refused(fitted: dict[str, Any], folder: Path, tmp_path: Path) -> None:
    message = refusal(
        "search", "--predictor", folder / "m.json", "--target-ms", 1, "--data", tmp_path, "--output", folder / "none"
    )
    assert "no images found" in message


def test_a_folder_of_a_networks_name_does_not_hide_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mobilenet_v2").mkdir()
    assert answer("show", "mobilenet_v2")["name"] == "mobilenet_v2"


def test_time_measures_a_file_anew_and_adds_nothing_to_the_profile(
    searched: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("netlathe.timing.PLAN", Plan(min_rounds=3, max_rounds=3))
    before = len(read_records(folder / "p.sqlite"))
    words = (
        "time",
        folder / "found" / "network.tflite",
        "--profile",
        folder / "p.sqlite",
        "--predictor",
        folder / "m.json",
    )
    first, second = (answer(*words)["timed"][0] for _ in range(2))
    assert first["predicted_ms"] == pytest.approx(searched["predicted_ms"], rel=1e-9)
    assert first["latency_ms"] > 0
    assert first["latency_ms"] != second["latency_ms"]
    assert len(read_records(folder / "p.sqlite")) == before


def test_times_of_another_setup_are_not_compared(fitted: dict[str, Any], folder: Path) -> None:
    words = ("time", "mbconv_k3_e4_s1_c24-24_4x4_relu6", "--threads", 2)
    assert "threads: 2 / 1" in refusal(*words, "--predictor", folder / "m.json")
    assert "was not measured on" in refusal(*words, "--profile", folder / "p.sqlite")


def test_a_block_is_shown_as_itself(fitted: dict[str, Any], folder: Path) -> None:
    name = "mbconv_k3_e4_s1_c24-24_4x4_relu6"
    shown = answer("show", name, "--predictor", folder / "m.json")
    assert shown["predicted_ms"] == shown["layers"][0]["predicted_ms"]
    table = netlathe("show", name, "--predictor", folder / "m.json").output.partition("Warning:")[0]
    assert table.count(name) == 1


def test_a_network_unlike_what_was_measured_is_warned_of(tmp_path: Path) -> None:
    """By a predictor that ships: how far one fitted here trusts itself depends on the noise of the minute."""
    space = tiny(16)
    space.architecture([0] * len(space.searchable)).save(tmp_path / "small.json")
    found = answer("predict", tmp_path / "small.json", "--predictor", "pixel4-cpu-networks")
    assert "little more than a guess" in found["warnings"][0]


def test_an_ending_that_contradicts_the_format_is_refused(
    searched: dict[str, Any], folder: Path, tmp_path: Path
) -> None:
    words = ("export", folder / "found", "--output")
    assert "ending says onnx" in refusal(*words, tmp_path / "a.onnx", "--format", "tflite")
    assert "Say so with --format" in refusal(*words, tmp_path / "a.bin")
    assert answer(*words, tmp_path / "a.onnx")["format"] == "onnx"


def test_brackets_in_a_path_are_no_markup(tmp_path: Path) -> None:
    assert "r[/b].json" in refusal("show", tmp_path / "r[/b].json")
    result = netlathe("profile", "--dry-run", "--output", tmp_path / "p[/b].sqlite")
    assert result.exit_code == 0


@pytest.mark.parametrize("words", [("fit", "--output"), ("fit", "--output", "m.json", "--plot")])
def test_an_output_that_cannot_be_written_is_one_clear_error(
    profiled: dict[str, Any], folder: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    command, *options = (str(tmp_path / w) if w.endswith(".json") else w for w in words)
    message = refusal(command, folder / "p.sqlite", "--residual", "none", *options, tmp_path)
    assert str(tmp_path) in message


def test_a_bad_table_ending_is_refused_before_measuring(tmp_path: Path) -> None:
    message = refusal("profile", "--output", tmp_path / "p.sqlite", "--export", tmp_path / "t.txt")
    assert "tables are written as .csv or .parquet" in message
    assert not (tmp_path / "p.sqlite").exists()


def test_exporting_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    assert "there is no such run" in refusal("export", tmp_path / "none", "--output", tmp_path / "n.tflite")
    assert "architecture.json" in refusal("export", tmp_path, "--output", tmp_path / "n.tflite")


def test_weights_of_another_network_are_refused(searched: dict[str, Any], folder: Path, tmp_path: Path) -> None:
    tiny(8).architecture([1] * 10).save(tmp_path / "architecture.json")
    (tmp_path / "weights.npz").write_bytes((folder / "found" / "weights.npz").read_bytes())
    assert "not the weights of" in refusal("export", tmp_path, "--output", tmp_path / "n.tflite")
