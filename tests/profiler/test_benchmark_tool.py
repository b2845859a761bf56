from __future__ import annotations

import functools
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netlathe.profiler.benchmark_failures import DOWNLOADS, tail
from netlathe.profiler.benchmark_tool import BenchmarkOptions, Statistics, flags, parse
from netlathe.profiler.errors import DeviceError, MeasurementError, UnsupportedGraphError
from netlathe.profiler.op_profile import OpTime, read_op_times

LOGS = Path(__file__).parent / "benchmark_model_logs"
CPU = BenchmarkOptions()
GPU = BenchmarkOptions(delegate="gpu")
NNAPI = BenchmarkOptions(delegate="nnapi")
ERRORS = (DeviceError, MeasurementError, UnsupportedGraphError)

WHOLE = {
    "01_cpu_op_profiling_tf2.3_era.txt": (50, 33.2094),
    "02_gpu_opencl_full_delegation_2020.txt": (50, 119.375),
    "13_cpu_riscv_yocto_sci_notation.txt": (50, 2950.34),
    "gpu_and_nnapi_2025.txt": (50, 309.350),
    "op_profile_cpu_tf2.8.txt": (50, 2950.34),
    "op_profile_gpu_tf2.3_era.txt": (110, 8.68033),
    "op_profile_xnnpack_litert_2024_blanks.txt": (64, 15.5176),
    "x86_litert2026_cpu_default.txt": (50, 1.10428),
    "x86_litert2026_cpu_xnnpack_true.txt": (50, 0.579),
    "x86_litert2026_require_full.txt": (5, 1.1122),
    "x86_litert2026_single.txt": (1, 1.464),
    "x86_tf2.14.1_cpu.txt": (92, 10.3656),
    "x86_tf2.14.1_cpu_verbose.txt": (5, 15.5236),
    "xnnpack_partial_am62.txt": (50, 602.943),
}
"""File -> runs and their mean in ms, read by eye."""

OUTPUT = """\
INFO: STARTING!
INFO: Initialized session in 3.899ms.
INFO: Running benchmark for at least 1 iterations and at least 0 seconds but terminate if exceeding 150 seconds.
INFO: {warmup}

INFO: Running benchmark for at least 5 iterations and at least 0 seconds but terminate if exceeding 150 seconds.
INFO: {runs}

INFO: Inference timings in us: Init: 3899, First inference: 2121, Warmup (avg): {warmup_us}, Inference (avg): {runs_us}
"""


@functools.cache
def log(name):
    """Output and exit code; the first line may tell the source, and a line rc=N stands anywhere."""
    text = (LOGS / name).read_text()
    code = re.search(r"^rc=(\d+)$", text, re.MULTILINE)
    text = re.sub(r"^(rc=\d+|# .*)\n", "", text, flags=re.MULTILINE)
    return text, int(code[1]) if code else 0


def output(runs, runs_us, warmup="count=1 curr=2121", warmup_us="2121"):
    return OUTPUT.format(runs=runs, runs_us=runs_us, warmup=warmup, warmup_us=warmup_us)


def message(error_type, name, options=CPU, code=None):
    text, logged_code = log(name)
    with pytest.raises(error_type) as caught:
        parse(text, logged_code if code is None else code, options)
    return str(caught.value)


def test_on_the_cpu_xnnpack_is_asked_for_or_ruled_out_by_name():
    assert flags(BenchmarkOptions(threads=4)) == ("--num_threads=4", "--use_xnnpack=true")
    assert flags(BenchmarkOptions(xnnpack=False)) == ("--num_threads=1", "--use_xnnpack=false")


def test_gpu_and_nnapi_must_take_the_graph_whole():
    assert flags(BenchmarkOptions(delegate="gpu", gpu_precision_loss=False)) == (
        "--num_threads=1", "--use_gpu=true", "--gpu_precision_loss_allowed=false", "--require_full_delegation=true",
    )  # fmt: skip
    assert flags(NNAPI) == (
        "--num_threads=1", "--use_nnapi=true", "--disable_nnapi_cpu=true", "--require_full_delegation=true",
    )  # fmt: skip


def test_what_may_disturb_the_times_is_passed_only_when_asked_for():
    quiet, curious = flags(CPU), flags(BenchmarkOptions(peak_memory=True, op_profile=True))
    assert set(curious) - set(quiet) == {"--report_peak_memory_footprint=true", "--enable_op_profiling=true"}


@pytest.mark.parametrize("options", [{"threads": 0}, {"delegate": "tpu"}])
def test_options_that_make_no_sense_are_refused(options):
    with pytest.raises(DeviceError):
        BenchmarkOptions(**options)


@pytest.mark.parametrize("name", WHOLE)
def test_every_version_s_whole_output_is_read(name):
    count, mean_ms = WHOLE[name]
    result = parse(*log(name), CPU)
    assert (result.runs.count, result.runs.mean_ms) == (count, pytest.approx(mean_ms, rel=1e-9))
    assert result.runs.min_ms <= result.runs.trimmed_mean_ms <= result.runs.max_ms


def test_every_number_of_a_recent_output_is_read():
    result = parse(*log("x86_litert2026_cpu_xnnpack_true.txt"), CPU)
    assert result.runs == Statistics(50, 0.561, 0.577, 0.525, 0.678, 0.579, 0.033, 0.543, 0.565, 0.643)
    assert result.warmup == Statistics(1, 1.025, 1.025, 1.025, 1.025, 1.025, 0.0, 1.025, 1.025, 1.025)
    assert (result.init_ms, result.first_inference_ms, result.model_mb) == (3.811, 1.025, 0.059136)
    assert (result.init_memory_mb, result.overall_memory_mb, result.peak_memory_mb) == (7.77734, 9.16797, 15.0625)
    assert result.delegated == "all"
    assert result.op_times == ()


def test_what_an_old_version_does_not_print_is_none():
    result = parse(*log("01_cpu_op_profiling_tf2.3_era.txt"), CPU)
    assert (result.runs.p5_ms, result.runs.median_ms, result.runs.p95_ms) == (None, None, None)
    assert result.peak_memory_mb is None
    assert (result.init_memory_mb, result.overall_memory_mb) == (0.0, 12.8672)


def test_without_a_warm_up_there_is_no_first_inference():
    result = parse(*log("x86_litert2026_single.txt"), CPU)
    assert result.warmup is None
    assert result.first_inference_ms is None
    assert result.runs.std_ms == 0.0


def test_equal_runs_are_their_own_statistics():
    result = parse(output("count=5 curr=7(all same) p5=7 median=7 p95=7", "7"), 0, CPU)
    assert result.runs == Statistics(5, 0.007, 0.007, 0.007, 0.007, 0.007, 0.0, 0.007, 0.007, 0.007)
    assert result.runs.trimmed_mean_ms == 0.007


def test_lines_may_end_as_a_terminal_ends_them():
    text, code = log("x86_litert2026_cpu_default.txt")
    assert parse(text.replace("\n", "\r\n"), code, CPU) == parse(text, code, CPU)


def test_a_rounded_average_outside_the_extremes_is_put_between_them():
    line = "count=4 first=2950349 curr=2950341 min=2950341 max=2950349 avg=2.95034e+06 std=3"
    assert parse(output(line, "2.95034e+06"), 0, CPU).runs.mean_ms == 2950.341


def test_the_typical_time_leaves_out_the_fastest_and_the_slowest_run():
    runs = [10, 11, 13, 12, 95]
    line = f"count=5 first=10 curr=95 min=10 max=95 avg={sum(runs) / 5:g} std=33"
    assert parse(output(line, f"{sum(runs) / 5:g}"), 0, CPU).runs.trimmed_mean_ms == pytest.approx((11 + 12 + 13) / 3e3)


def test_the_typical_time_of_two_runs_is_the_faster_one():
    line = "count=2 first=30 curr=10 min=10 max=30 avg=20 std=10"
    assert parse(output(line, "20"), 0, CPU).runs.trimmed_mean_ms == 0.010


def test_the_typical_time_stays_between_the_extremes_when_one_run_swamps_the_average():
    # 1, 1 and 1000000 us: the average's sixth digit is worth more than the two fast runs.
    line = "count=3 first=1 curr=1 min=1 max=1000000 avg=333334 std=471404"
    assert parse(output(line, "333334"), 0, CPU).runs.trimmed_mean_ms == 0.001


def test_a_mean_resolves_what_the_clock_does_not():
    line = "count=4 first=7 curr=8 min=7 max=8 avg=7.5 std=0"
    assert parse(output(line, "7.5"), 0, CPU).runs.trimmed_mean_ms == 0.0075


@pytest.mark.parametrize(
    ("runs", "runs_us"),
    [
        ("count=0", "0"),
        ("count=0 p5=0 median=0 p95=0", "0"),
        ("count=3 curr=7", "7"),  # equal runs say so
        ("count=1 curr=7(all same)", "7"),
        ("count=3 curr=0(all same)", "0"),  # faster than the clock
        ("count=5 first=10 curr=11 min=12 max=13 avg=12 std=1", "12"),
        ("count=5 first=12 curr=13 min=12 max=13 avg=14 std=1", "14"),
        ("count=5 first=12 curr=13 min=13 max=12 avg=12.5 std=1", "12.5"),
        ("count=5 first=12 curr=13 min=12 max=13 avg=12.5 std=2", "12.5"),
        ("count=5 first=12 curr=13 min=12 max=13 avg=12.5 std=1 p5=12 median=14 p95=13", "12.5"),
        ("count=5 first=-1 curr=13 min=-1 max=13 avg=12.5 std=1", "12.5"),
        ("count=5 first=12 curr=13 min=12 max=13 avg=nan std=1", "nan"),
        ("count=5 first=12 curr=13 min=12 max=inf avg=inf std=1", "inf"),
        ("count=5 first=12 curr=13 min=12 max=13 avg=12.5", "12.5"),
        ("count=0 curr=7", "7"),
        ("count=5 first=12 curr=13 min=12 max=13 avg=12.5 std=1", "12.6"),  # the summary says something else
        ("count=" + "9" * 5000 + " curr=7", "7"),
    ],
)
def test_statistics_that_cannot_be_true_are_an_error(runs, runs_us):
    with pytest.raises(MeasurementError):
        parse(output(runs, runs_us), 0, CPU)


def test_a_single_line_of_statistics_could_be_the_warm_up_and_is_an_error():
    assert "1 lines of statistics" in message(MeasurementError, "06_xnnpack_cpu_info_prefix_tf2.16.txt")


@pytest.mark.parametrize("text", ["", "\0\x1b[31mgarbage\x07\n", "INFO: STARTING!\n"])
def test_an_exit_code_of_0_without_a_result_is_an_error_that_shows_the_output(text):
    with pytest.raises(MeasurementError) as caught:
        parse(text, 0, CPU)
    assert tail(text) in str(caught.value)
    assert str(caught.value).replace("\n", "").isprintable()


def test_the_shown_output_is_bounded_and_control_characters_are_visible():
    shown = tail("\n".join(f"{i} \x1b[0m" + "x" * 500 for i in range(100)))
    assert len(shown.split("\n")) == 12
    assert len(shown) < 12 * 220
    assert r"99 \x1b[0mx" in shown


@pytest.mark.parametrize(
    ("name", "options", "delegated"),
    [
        ("02_gpu_opencl_full_delegation_2020.txt", GPU, "all"),
        ("op_profile_gpu_tf2.3_era.txt", GPU, "all"),
        ("gpu_and_nnapi_2025.txt", GPU, "all"),
        ("xnnpack_partial_am62.txt", CPU, "part: 1 kernels"),
        ("x86_tf2.14.1_cpu.txt", CPU, "unknown"),
        ("x86_tf2.14.1_cpu.txt", BenchmarkOptions(xnnpack=False), "none"),
    ],
)
def test_what_is_delegated_is_recorded(name, options, delegated):
    assert parse(*log(name), options).delegated == delegated


@pytest.mark.parametrize(
    ("name", "options", "share", "kernels"),
    [
        ("x86_litert2026_cpu_xnnpack_true.txt", CPU, 1.0, 1),
        ("gpu_and_nnapi_2025.txt", GPU, 1.0, 1),
        ("xnnpack_partial_am62.txt", CPU, None, 1),
        ("gpu_not_built_in_2021.txt", CPU, None, 22),
        ("x86_tf2.14.1_cpu.txt", CPU, None, None),
        ("x86_tf2.14.1_cpu.txt", BenchmarkOptions(xnnpack=False), 0.0, 0),
    ],
)
def test_how_much_is_delegated_is_a_number_where_the_tool_tells(name, options, share, kernels):
    result = parse(*log(name), options)
    assert (result.delegated_share, result.delegate_kernels) == (share, kernels)


def test_the_share_of_a_part_is_that_of_its_own_delegate_and_only_if_it_was_applied():
    text, code = log("xnnpack_partial_am62.txt")
    counted = "VERBOSE: Replacing {} out of 64 node(s) with delegate ({}) node, yielding 1 partitions for subgraph 0.\n"
    own, other = counted.format(48, "TfLiteXNNPackDelegate"), counted.format(16, "TfLiteGpuDelegateV2")
    assert parse(other + own + text, code, CPU).delegated_share == 0.75
    assert parse(counted.format(64, "TfLiteXNNPackDelegate") + text, code, CPU).delegated_share is None
    refused = "Though XNNPACK delegate is explicitly applied, the model graph will not be executed by the delegate."
    result = parse(own + re.sub("Explicitly applied.*", refused, text), code, CPU)
    assert (result.delegated, result.delegated_share, result.delegate_kernels) == ("none", 0.0, 0)


def test_the_gpu_s_api_is_read_and_a_fall_back_shows():
    text, code = log("02_gpu_opencl_full_delegation_2020.txt")
    opencl = "INFO: Initialized OpenCL-based API.\n"
    fallen = (
        'ERROR: Can not open OpenCL library on this device - dlopen failed: library "libOpenCL.so" not found\n'
        "ERROR: Falling back to OpenGL\nINFO: Initialized OpenGL-based API.\n"
    )
    assert parse(text, code, GPU).gpu_api == "OpenCL"
    assert parse(text.replace(opencl, fallen), code, GPU).gpu_api == "OpenGL"
    assert parse(text.replace(opencl, opencl + fallen), code, GPU).gpu_api == "OpenCL+OpenGL"
    assert parse(text.replace(opencl, ""), code, GPU).gpu_api == "unknown"
    assert parse(*log("x86_litert2026_cpu_xnnpack_true.txt"), CPU).gpu_api == ""


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("gpu_and_nnapi_2025.txt", NNAPI, "executes nothing"),
        ("x86_litert2026_cpu_default.txt", GPU, "not mentioned"),
        ("x86_litert2026_require_full.txt", GPU, "not mentioned"),  # completely executed, but by XNNPACK
        ("nnapi_refused_tf2.4.txt", NNAPI, "Failed to apply NNAPI delegate"),
        ("op_version_tf2.5_era.txt", CPU, "'MUL' version '5'"),
    ],
)
def test_a_graph_that_runs_on_the_cpu_instead_is_unsupported(name, options, reason):
    assert reason in message(UnsupportedGraphError, name, options)


def test_a_graph_that_a_delegate_takes_in_parts_is_unsupported():
    text, code = log("xnnpack_partial_am62.txt")
    with pytest.raises(UnsupportedGraphError, match="takes part: 1 kernels"):
        parse(text.replace("XNNPACK delegate", "GPU delegate"), code, GPU)


@pytest.mark.parametrize(
    "line",
    [
        "ERROR: Disallowed CPU fallback detected.",
        "ERROR: Encountered unresolved custom op: Atan.",
        "ERROR: Node number 1 (Atan) failed to prepare.",
        "ERROR: Op builtin_code out of range: 150. Are you using old TFLite binary with newer model?",
    ],
)
def test_a_refusal_for_good_is_unsupported_unless_the_tool_was_killed(line):
    text = f"INFO: STARTING!\n{line}\nERROR: Benchmarking failed.\n"
    with pytest.raises(UnsupportedGraphError, match=re.escape(line)):
        parse(text, 1, GPU)
    with pytest.raises(MeasurementError, match="killed"):
        parse(text, 137, GPU)


def test_an_unknown_flag_is_a_matter_of_the_tool_though_it_exits_with_0():
    assert "--no_such=1" in message(DeviceError, "x86_litert2026_unknown_flag.txt")
    assert "-use-gpu=true" in message(DeviceError, "09_segfault_2020.txt", code=139)
    assert "'--num_runs=abc'" in message(DeviceError, "x86_tf2.14.1_bad_value.txt")


def test_duplicate_flags_are_harmless():
    text, code = log("x86_tf2.14.1_cpu.txt")
    assert "Duplicate flags: num_threads" in text
    assert parse(text, code, CPU).runs.count == 92


def test_litert_s_tool_of_the_same_name_is_recognized_and_the_right_one_named():
    assert DOWNLOADS in message(DeviceError, "other_tool_litert_2025.txt")


def test_a_build_without_gpu_support_is_a_matter_of_the_tool():
    assert "cannot use GPU" in message(DeviceError, "gpu_not_built_in_2021.txt", GPU)
    assert parse(*log("gpu_not_built_in_2021.txt"), CPU).delegated == "part: 22 kernels"


@pytest.mark.parametrize(
    ("text", "code", "reason"),
    [
        ("/system/bin/sh: ./benchmark_model: not executable: 64-bit ELF file\n", 126, "another kind of processor"),
        ("timeout: exec ./benchmark_model: Exec format error\n", 126, "another kind of processor"),
        ("./benchmark_model[1]: syntax error: unexpected '('\n", 1, "another kind of processor"),
        ('/data/local/tmp/netlathe/benchmark_model: 1: Syntax error: "(" unexpected\n', 2, "another kind of processor"),
        ("/data/local/tmp/netlathe/benchmark_model: 1: ELF: not found\n", 127, "another kind of processor"),
        ("/system/bin/sh: benchmark_model: can't execute: Permission denied\n", 126, "mounted noexec or the phone's"),
        ("timeout: exec /data/local/tmp/netlathe/benchmark_model: Permission denied\n", 126, "mounted noexec or the"),
        ("taskset: exec /data/local/tmp/netlathe/benchmark_model: Permission denied\n", 126, "mounted noexec or the"),
        ("timeout: exec ./benchmark_model: Text file busy\n", 126, "still being written"),
        ("error: only position independent executables (PIE) are supported.\n", 1, "link it with -pie"),
        ("/system/bin/sh: taskset: inaccessible or not found\n", 127, "leave --cores out"),
        ("timeout: exec taskset: No such file or directory\n", 127, "leave --cores out"),
        ("timeout: exec ./benchmark_model: No such file or directory\n", 127, "dynamic linker"),
        ("/system/bin/sh: benchmark_model: inaccessible or not found\n", 127, "not there"),
        ('CANNOT LINK EXECUTABLE "./benchmark_model": library "libc++_shared.so" not found\nAborted\n', 134, "library"),
        ("taskset: failed to set 1234's affinity: Invalid argument\n", 1, "core mask"),
        ("", 126, "cannot be executed"),
        ("", 127, "not found"),
    ],
)
def test_a_tool_that_cannot_start_is_a_matter_of_the_phone(text, code, reason):
    with pytest.raises(DeviceError, match=re.escape(reason)):
        parse(text, code, CPU)


def test_the_wrong_abi_of_a_real_phone_is_recognized():
    assert "another kind of processor" in message(DeviceError, "10_wrong_abi_2020.txt", code=126)


def test_words_that_a_driver_prints_while_the_tool_runs_do_not_blame_the_phone():
    text = "INFO: STARTING!\nERROR: /dev/mali0: Permission denied\nERROR: libOpenCL.so: not found\nSegmentation fault\n"
    with pytest.raises(MeasurementError, match="segmentation fault"):
        parse(text, 139, GPU)


@pytest.mark.parametrize(
    ("name", "code", "meaning"),
    [
        ("x86_tf2.14.1_missing.txt", 1, "Could not open"),
        ("x86_litert2026_bad_signature.txt", 1, "Signature"),
        ("x86_tf2.14.1_abort.txt", 134, "aborted"),
        ("x86_tf2.14.1_cpu.txt", 139, "segmentation fault"),
        ("x86_tf2.14.1_cpu.txt", 137, "memory"),
        ("x86_tf2.14.1_cpu.txt", 124, "longer than it may"),
        ("x86_tf2.14.1_cpu.txt", 135, "signal 7"),
        ("x86_tf2.14.1_cpu.txt", 77, "exit code 77"),
    ],
)
def test_a_crash_a_hang_and_a_kill_say_what_happened_whatever_was_printed_before(name, code, meaning):
    assert meaning in message(MeasurementError, name, code=code)


def test_the_operators_of_an_old_version_s_table_are_read():
    ops = read_op_times(log("op_profile_cpu_tf2.8.txt")[0])
    assert len(ops) == 8
    assert ops[1] == OpTime(
        "DEPTHWISE_CONV_2D", "[MobilenetV1/MobilenetV1/Conv2d_1_depthwise/Relu6]:1", 49.870, 0.01691, 1, 0.0
    )
    assert ops[-1].node_type == "SOFTMAX"


def test_the_runs_table_is_read_not_that_of_the_initialization():
    (op,) = read_op_times(log("op_profile_gpu_tf2.3_era.txt")[0])
    assert op == OpTime("TfLiteGpuDelegateV2", "[Identity]:77", 8.671, 1.0, 1, 0.0)


def test_a_table_whose_tabs_became_blanks_and_whose_types_hold_blanks_is_read():
    ops = read_op_times(log("op_profile_xnnpack_litert_2024_blanks.txt")[0])
    assert ops[2] == OpTime(
        "Convolution (NHWC, QC8) DWConv", "Delegate/Convolution (NHWC, QC8) DWConv:1", 0.051, 0.04317, 13, 0.0
    )
    # Times are per call: 13 calls make up the share of the 15.3 ms that the tool gives as total.
    assert ops[2].mean_ms * ops[2].times_called / 15.3092 == pytest.approx(ops[2].share, rel=0.01)
    assert ops[3].name.startswith("[StatefulPartitionedCall:3, StatefulPartitionedCall:2, ")


def test_a_recent_table_without_a_start_column_is_read():
    # The other tool prints the same table, without the heading.
    table = log("other_tool_litert_2025.txt")[0].partition("benchmark_litert_model.h:179] \n")[2]
    ops = read_op_times("INFO: Operator-wise Profiling Info for Regular Benchmark Runs:\n" + table)
    assert ops[1] == OpTime("AllocateTensors", "AllocateTensors/0", 0.291, 0.022 / 100, 0, 452.0)
    assert ops[3].node_type == "Fully Connected (NC, PF32) GEMM"


def test_operators_are_read_only_when_asked_for_and_then_must_be_there():
    profiled = BenchmarkOptions(op_profile=True)
    text, code = log("op_profile_cpu_tf2.8.txt")
    assert parse(text, code, CPU).op_times == ()
    assert parse(text, code, profiled).op_times == read_op_times(text)
    with pytest.raises(MeasurementError, match="no table of operators"):
        parse(*log("x86_litert2026_cpu_default.txt"), profiled)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("0.066", "0.066\t1.0"),
        ("60.957", "-60.957"),
        ("60.957", "x"),
        ("2.066%", "-nan%"),
        ("[avg ms]", "[mean ms]"),
    ],
)
def test_a_damaged_table_is_an_error(old, new):
    head, mark, table = log("op_profile_cpu_tf2.8.txt")[0].partition("Operator-wise")
    with pytest.raises(MeasurementError, match="table of operators"):
        read_op_times(head + mark + table.replace(old, new))


@settings(deadline=None, max_examples=300)
@given(
    text=st.text() | st.lists(st.sampled_from(sorted({line for name in WHOLE for line in log(name)[0].split("\n")})))
    .map("\n".join),
    code=st.sampled_from([0, 0, 0, 1, 124, 126, 127, 134, 139]) | st.integers(-1000, 1000),
    delegate=st.sampled_from(["cpu", "gpu", "nnapi"]),
)  # fmt: skip
def test_any_text_is_a_result_or_one_of_three_errors(text, code, delegate):
    try:
        result = parse(text, code, BenchmarkOptions(delegate=delegate))
    except ERRORS:
        return
    assert code == 0
    assert len(re.findall(r"^(?:INFO: )?count=", text, re.MULTILINE)) == 2
    assert 0 < result.runs.trimmed_mean_ms < float("inf")


@settings(deadline=None, max_examples=500)
@given(data=st.data(), name=st.sampled_from(sorted(WHOLE)), profiled=st.booleans())
def test_a_log_cut_anywhere_gives_the_whole_log_s_numbers_or_an_error(data, name, profiled):
    text, code = log(name)
    whole = parse(text, code, CPU).runs
    first, last = sorted(data.draw(st.tuples(*[st.integers(0, len(text))] * 2)))
    start = data.draw(st.sampled_from([0, first]))
    try:
        result = parse(text[start:last], code, BenchmarkOptions(op_profile=profiled))
    except ERRORS:
        return
    assert result.runs == whole
    if profiled:
        assert result.op_times == read_op_times(text)


@pytest.mark.parametrize("name", sorted(WHOLE))
def test_a_log_cut_at_every_place_around_its_statistics_gives_the_whole_log_s_numbers_or_an_error(name):
    text, code = log(name)
    whole = parse(text, code, CPU).runs
    begin, end = text.index("count="), text.index("nference (avg): ") + 40
    for at in range(begin, end):
        try:
            assert parse(text[:at], code, CPU).runs == whole
        except ERRORS:
            continue


@pytest.mark.parametrize("name", [name for name in sorted(WHOLE) if name.startswith("op_profile")])
def test_a_table_of_operators_that_is_cut_at_any_place_is_whole_or_an_error(name):
    text, _ = log(name)
    whole = read_op_times(text)
    for at in range(text.index("Operator-wise"), len(text)):
        try:
            assert read_op_times(text[:at]) == whole
        except MeasurementError:
            continue
