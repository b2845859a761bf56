"""The loopback phone's benchmark_model prints and counts as the official one does."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from netlathe.archspace.forms.tflite import write_tflite

from .phone import LoopbackPhone, loopback_unavailable
from .tool.flags import parse
from .tool.output import STYLES, Statistics, number
from .tool_calls import FOLDER, GRAPH, QUICK, TIMEOUT_S, counts, forks, installed, long_call, shell, tool

pytestmark = pytest.mark.skipif(loopback_unavailable() is not None, reason=str(loopback_unavailable()))

MODELS = {"mb": write_tflite(GRAPH), "int8": write_tflite(GRAPH, dtype="int8")}
LOGS = Path(__file__).parents[1] / "profiler" / "benchmark_model_logs"


@pytest.fixture(scope="module")
def base_phone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackPhone]:
    with installed(tmp_path_factory.mktemp("phone"), MODELS) as phone:
        yield phone


@pytest.fixture
def phone(base_phone: LoopbackPhone) -> Iterator[LoopbackPhone]:
    yield base_phone
    base_phone.set_tool_style("2026")
    base_phone.refuse_on_delegate("gpu")


def shape(line: str) -> str:
    """A line without its numbers, and without the program's and the model's names."""
    line = re.sub(r"\(all same\)", "", line)
    return re.sub(r"\d+(\.\d+)?(e[+-]\d+)?", "N", line.replace("0.tflite", "mb.tflite"))


@pytest.mark.parametrize(
    "name",
    ["bad_signature", "cpu_default", "cpu_xnnpack_true", "require_full", "single", "unknown_flag"],
)
def test_output_has_the_lines_of_the_official_tool(phone, name):
    command, *expected = (LOGS / f"x86_litert2026_{name}.txt").read_text().splitlines()
    flags = command.partition("--graph=mb.tflite ")[2]
    text, code = tool(phone, flags)
    assert [shape(line) for line in text.splitlines()] == [shape(line) for line in expected[:-1]]
    assert f"rc={code}" == expected[-1]


def test_the_style_of_2023_has_the_lines_of_its_official_tool(phone):
    phone.set_tool_style("2023")
    command, *expected = (LOGS / "x86_tf2.14.1_cpu.txt").read_text().splitlines()
    text, code = tool(phone, command.partition("--graph=0.tflite ")[2])
    # That build announced no XNNPACK; LiteRT does.
    lines = [shape(line) for line in text.splitlines() if "Created TensorFlow Lite XNNPACK" not in line]
    assert lines == [shape(line) for line in expected[:-1]]
    assert code == 0


def test_verbose_logs_every_parameter_in_the_official_order(phone):
    phone.set_tool_style("2023")
    official = (LOGS / "x86_tf2.14.1_cpu_verbose.txt").read_text()
    text, _ = tool(phone, "--num_threads=1 --num_runs=5 --warmup_min_secs=0 --min_secs=0 --verbose=true")
    known = re.findall(r"^INFO: (.*): \[.*\]$", official, re.MULTILINE)
    labels = [label for label in re.findall(r"^INFO: (.*): \[.*\]$", text, re.MULTILINE) if label in known]
    assert labels == [label for label in known if label in labels]
    assert len(labels) > 20


def test_the_style_of_2021_has_no_prefixes_and_no_percentiles(phone):
    phone.set_tool_style("2021")
    text, _ = tool(phone)
    assert text.startswith("STARTING!\nDuplicate flags: num_threads\nLog parameter values verbosely: [0]\n")
    assert re.search(r"^count=6 first=\d+ curr=\d+ min=\d+ max=\d+ avg=[\d.]+ std=\d+$", text, re.MULTILINE)


def test_the_counts_are_of_real_runs_and_agree_with_one_another(phone):
    text, _ = tool(phone, "--num_runs=50 --warmup_runs=5 --min_secs=0 --warmup_min_secs=0")
    warmup, runs = counts(text)
    assert (warmup["count"], runs["count"]) == (5, 50)
    assert 0 < runs["min"] <= runs["p5"] <= runs["median"] <= runs["p95"] <= runs["max"]
    assert runs["min"] <= runs["avg"] <= runs["max"]
    assert runs["min"] <= runs["first"] <= runs["max"]
    assert runs["std"] <= runs["max"] - runs["min"]
    timings = re.search(r"Init: (\d+), First inference: (\d+), Warmup \(avg\): (\S+), Inference \(avg\): (\S+)", text)
    assert [float(value) for value in timings.groups()[1:]] == [warmup["first"], warmup["avg"], runs["avg"]]


def test_a_phase_lasts_at_least_its_seconds_and_its_runs(phone):
    text, _ = tool(phone, "--num_runs=2 --min_secs=0.05 --warmup_runs=0 --warmup_min_secs=0")
    (_, runs) = counts(text)
    assert runs["count"] > 2
    assert runs["count"] * runs["avg"] < TIMEOUT_S * 1e6


def test_numbers_are_printed_as_cpp_prints_them():
    assert [number(value) for value in (1286.0, 1104.28, 2950342.0, 3512391.0, 0.059136, 0.5)] == [
        "1286", "1104.28", "2.95034e+06", "3.51239e+06", "0.059136", "0.5",
    ]  # fmt: skip


def test_statistics_follow_the_official_formulas():
    samples = [7, 3, 5, 4, 9]
    line = Statistics(samples).line(percentiles=True)
    assert line == "count=5 first=7 curr=9 min=3 max=9 avg=5.6 std=2 p5=3 median=5 p95=9"
    assert Statistics(samples).deviation == int(np.std(samples))
    assert Statistics([7, 7]).line(percentiles=False) == "count=2 curr=7(all same)"
    assert Statistics([30399]).line(percentiles=False) == "count=1 curr=30399"
    assert Statistics([]).line(percentiles=True) == "count=0 p5=0 median=0 p95=0"


def test_int8_models_run(phone):
    text, code = tool(phone, model="int8.tflite")
    assert code == 0
    assert counts(text)[1]["count"] == 6


def test_a_call_runs_on_the_cores_of_its_caller(phone):
    core = len(phone.cores_khz) - 1
    with long_call(phone, f"taskset {1 << core:x}"):
        (fork,) = forks(phone)
        assert os.sched_getaffinity(fork) == {core}


def test_the_first_of_a_repeated_flag_counts():
    parameters = parse(["--num_runs=3", "--num_runs=4", "--bare", "loose"], STYLES["2026"])
    assert (parameters["num_runs"], parameters.unknown) == (3, ["--num_runs=4", "--bare", "loose"])


def test_a_value_that_is_no_number_ends_in_usage(phone):
    text, code = tool(phone, "--num_runs=abc")
    assert code == 1
    first = "INFO: STARTING!\nERROR: Failed to parse flag 'num_runs' against argv '--num_runs=abc'\n"
    assert text.startswith(f"{first}ERROR: usage: ./benchmark_model <flags>\nFlags:\n\t--")
    assert re.search(r"^\t--num_runs=50 +\tint32\toptional\t", text, re.MULTILINE)
    assert text.endswith("\n\nERROR: Benchmarking failed.\n")


def test_a_missing_model_fails_as_the_official_tool_does(phone):
    expected = (LOGS / "x86_tf2.14.1_missing.txt").read_text()
    result = shell(phone, "./benchmark_model --graph=nothing.tflite")
    errors = result.stderr.decode()
    assert errors == (
        "ERROR: Could not open 'nothing.tflite'.\nERROR: The model allocation is null/empty\n"
        "ERROR: Failed to load model nothing.tflite\nERROR: Benchmarking failed.\n"
    )
    for line in errors.splitlines():
        assert line.partition("nothing")[0] in expected
    assert result.returncode == 1


@pytest.mark.parametrize("content", [b"", b"no model at all", b"\x1c\0\0\0TFL3" + bytes(40)])
def test_a_file_that_is_no_model_fails(phone, content):
    phone.path(f"{FOLDER}/bad.tflite").write_bytes(content)
    text, code = tool(phone, model="bad.tflite")
    assert code == 1
    assert text.endswith("ERROR: Benchmarking failed.\n")
    assert "count=" not in text


def test_a_relative_and_an_absolute_model_path_work(phone):
    for path in ("mb.tflite", "./mb.tflite", f"{FOLDER}/mb.tflite"):
        assert tool(phone, model=path)[1] == 0


def test_a_gpu_that_takes_all_ops_says_so(phone):
    text, code = tool(phone, f"{QUICK} --use_gpu=true --require_full_delegation=true")
    assert code == 0
    line = "INFO: Explicitly applied GPU delegate, and the model graph will be completely executed by the delegate.\n"
    assert line in text
    assert "XNNPACK" not in text


def test_a_gpu_that_refuses_an_op_takes_the_rest_or_fails(phone):
    phone.refuse_on_delegate("gpu", "DEPTHWISE_CONV_2D")
    text, code = tool(phone, f"{QUICK} --use_gpu=true")
    assert code == 0
    assert "the model graph will be partially executed by the delegate w/ 2 delegate kernels.\n" in text
    assert "DEPTHWISE_CONV_2D: Operation is not supported.\n" in text
    text, code = tool(phone, f"{QUICK} --use_gpu=true --require_full_delegation=true")
    assert code == 1
    assert text.endswith("ERROR: Disallowed CPU fallback detected.\nERROR: Benchmarking failed.\n")


def test_without_opencl_the_gpu_falls_back_to_opengl(phone):
    phone.fault("no_opencl")
    text, code = tool(phone, f"{QUICK} --use_gpu=true --require_full_delegation=true")
    phone.clear_faults()
    assert code == 0
    assert "ERROR: Falling back to OpenGL\nINFO: Initialized OpenGL-based API.\n" in text
    assert "OpenCL-based" not in text


def test_without_xnnpack_the_ops_run_on_their_own_and_the_tool_says_so(phone):
    phone.fault("no_xnnpack")
    text, code = tool(phone, f"{QUICK} --use_xnnpack=true --enable_op_profiling=true")
    phone.clear_faults()
    assert code == 0
    assert "Though XNNPACK delegate is explicitly applied, the model graph will not be executed by the" in text
    assert [row[0] for row in op_rows(text)[1:]] == ["CONV_2D", "DEPTHWISE_CONV_2D", "CONV_2D", "ADD"]


def test_a_second_delegate_gets_what_the_first_leaves(phone):
    text, _ = tool(phone, f"{QUICK} --use_gpu=true --use_nnapi=true")
    assert "INFO: Going to apply 2 delegates one after another.\n" in text
    assert "Though NNAPI delegate is explicitly applied, the model graph will not be executed by the delegate." in text


def test_a_demand_for_full_delegation_without_a_delegate_fails(phone):
    assert tool(phone, f"{QUICK} --require_full_delegation=true")[1] == 1
    phone.set_tool_style("2023")
    assert tool(phone, f"{QUICK} --require_full_delegation=true")[1] == 0


def op_rows(text: str) -> list[list[str]]:
    """Cells of the run order of the regular runs."""
    part = text.partition("Operator-wise Profiling Info for Regular Benchmark Runs:")[2]
    table = part.partition("Run Order")[2].partition("Top by")[0]
    return [[cell.strip() for cell in line.split("\t")[1:]] for line in table.splitlines() if line.startswith("\t")]


@pytest.mark.parametrize(
    ("style", "log"), [("2026", "other_tool_litert_2025.txt"), ("2021", "op_profile_gpu_tf2.3_era.txt")]
)
def test_op_tables_have_the_official_columns(phone, style, log):
    phone.set_tool_style(style)
    text, _ = tool(phone, f"{QUICK} --use_xnnpack=false --enable_op_profiling=true")
    header = next(line for line in text.splitlines() if "[node type]" in line)
    assert header in (LOGS / log).read_text().splitlines()


def test_op_times_add_up_to_the_runs(phone):
    text, _ = tool(phone, f"{QUICK} --use_xnnpack=false --enable_op_profiling=true")
    _, *rows = op_rows(text)
    # Residual blocks end in ADD.
    assert [row[0] for row in rows] == ["CONV_2D", "DEPTHWISE_CONV_2D", "CONV_2D", "ADD"]
    assert [row[-1].rpartition(":")[2] for row in rows] == ["0", "1", "2", "3"]
    assert all(float(row[2]) > 0 for row in rows[:3])
    assert sum(float(row[2]) for row in rows) * 1000 == pytest.approx(counts(text)[1]["avg"], abs=4)


def test_op_tables_name_the_delegates_ops_where_the_tool_is_new(phone):
    flags = f"{QUICK} --enable_op_profiling=true"
    rows = op_rows(tool(phone, flags)[0])[1:]
    assert [row[-1] for row in rows][:2] == [
        "Delegate/Convolution (NHWC, F32) IGEMM:0",
        "Delegate/Convolution (NHWC, F32) DWConv:1",
    ]
    phone.set_tool_style("2021")
    assert [row[0] for row in op_rows(tool(phone, flags)[0])[1:]] == ["TfLiteXNNPackDelegate"]
