"""LiteRT's newer benchmark tool: its flags, its output with the result file, and a phone that it runs on."""

from __future__ import annotations

from pathlib import Path

import pytest
from loopback.adbd import AdbDaemon
from loopback.phone import BENCHMARK_MODEL, LoopbackPhone, litert_program, loopback_unavailable
from loopback.tool.litert import benchmark_result

import netlathe as nl
from netlathe.archspace.blocks import MBConv
from netlathe.archspace.forms.tflite import write_tflite
from netlathe.profiler.benchmark_tool import BenchmarkOptions
from netlathe.profiler.errors import DeviceError, MeasurementError, UnsupportedGraphError
from netlathe.profiler.phone.litert_tool import RESULT_MARK, flags, parse, read_result
from tests import model_files
from tests.model_files import saved

pytestmark = pytest.mark.usefixtures("little_effort")
on_a_phone = pytest.mark.skipif(loopback_unavailable() is not None, reason=str(loopback_unavailable()))
LOG = (Path(__file__).parent / "benchmark_model_logs/other_tool_litert_2025.txt").read_text()
CPU = BenchmarkOptions(tool="litert")
NPU = BenchmarkOptions(tool="litert", delegate="npu")


def result(**latency: float) -> bytes:
    whole = benchmark_result()
    for name, value in {"avg_ms": 0.464545, "init_ms": 4.478, "first_inference_ms": 1.033, **latency}.items():
        setattr(whole.latency_metrics, name, value)
    whole.memory_metrics.init_footprint_kb, whole.memory_metrics.peak_mem_mb = 2048, 12.5
    whole.misc_metrics.num_runs = 2112
    return whole.SerializeToString()


def with_result(content: bytes, output: str = LOG) -> str:
    digits = content.hex(" ")
    lines = [digits[start : start + 48] for start in range(0, len(digits), 48)]  # as od breaks them
    return f"{output}\n{RESULT_MARK}\n" + "\n".join(lines)


def test_a_real_log_is_read_with_and_without_the_result_file():
    bare, told = parse(LOG, 0, CPU), parse(with_result(result()), 0, CPU)
    for one in (bare, told):
        assert (one.runs.count, one.runs.median_ms, one.first_inference_ms) == (2112, 0.462, 1.033)
        assert one.init_ms == pytest.approx(4.478)
        assert (one.delegated, one.delegated_share) == ("all", 1.0)
    assert (bare.peak_memory_mb, told.peak_memory_mb, told.init_memory_mb) == (None, 12.5, 2.0)


def test_the_kernels_of_a_real_log_are_read():
    ops = parse(LOG, 0, BenchmarkOptions(tool="litert", op_profile=True)).op_times
    assert [one.node_type for one in ops][3] == "Fully Connected (NC, PF32) GEMM"
    assert sum(one.mean_ms for one in ops) == pytest.approx(0.702)


@pytest.mark.parametrize("latency", [{"avg_ms": 0.47}, {"avg_ms": float("nan")}, {"init_ms": -1.0}])
def test_a_result_that_contradicts_the_statistics_is_no_result(latency):
    with pytest.raises(MeasurementError, match=r"differ|no sound result"):
        parse(with_result(result(**latency)), 0, CPU)


def test_a_result_file_that_is_cut_off_is_no_result():
    whole = result()
    assert read_result(whole)["avg_ms"] == pytest.approx(0.464545)
    for end in range(1, len(whole)):
        try:
            found = read_result(whole[:end])
        except MeasurementError:
            continue
        assert found["avg_ms"] == pytest.approx(0.464545)  # cut between two messages
        with pytest.raises(MeasurementError):
            parse(with_result(whole[:end]), 0, CPU)


def test_a_summary_that_does_not_fit_or_is_missing_is_no_result():
    with pytest.raises(MeasurementError, match="differ"):
        parse(LOG.replace("(2112 runs)", "(2111 runs)"), 0, CPU)
    with pytest.raises(MeasurementError, match="no summary"):
        parse(LOG.partition("INFO: [./litert")[0], 0, CPU)


def test_an_npu_that_leaves_the_cpu_something_has_no_time():
    with pytest.raises(UnsupportedGraphError, match="the NPU does not take the whole graph"):
        parse(LOG, 0, NPU)


def test_an_accelerator_never_goes_with_the_cpu():
    for delegate in ("gpu", "npu"):
        words = flags(BenchmarkOptions(tool="litert", delegate=delegate))
        assert {"--use_cpu=false", f"--use_{delegate}=true", "--require_full_delegation=true"} <= set(words)
    assert "--use_cpu=true" in flags(CPU)


@pytest.fixture(scope="module")
def phone(tmp_path_factory):
    with LoopbackPhone(tmp_path_factory.mktemp("phone")) as found, AdbDaemon(found) as daemon:
        found.address = daemon.address
        yield found


@pytest.fixture
def program(tmp_path):
    return litert_program(tmp_path)


@on_a_phone
def test_the_newer_tool_times_files_on_the_cpu(phone, tmp_path, program):
    file = saved(tmp_path, "a.tflite", write_tflite(MBConv(24, 24, 28, 28).graph()))
    report = nl.time(file, device=phone.address, benchmark_binary=program, budget_s=0.1, op_profile=True)
    (one,) = report.timed
    assert min(one.latency_ms, one.median_ms, one.init_ms, one.first_inference_ms, one.peak_memory_mb) > 0
    assert one.delegated == {"XNNPACK": 1.0}
    assert dict(one.setup.details)["benchmark_model"] == "benchmark_litert_model"
    assert len(one.observation.op_times) == 4


@on_a_phone
def test_an_npu_is_reached_through_the_libraries_beside_the_tool(phone, tmp_path, program):
    file = saved(tmp_path, "two.tflite", model_files.two_and_two())
    options = {"device": phone.address, "benchmark_binary": program, "budget_s": 0.1, "delegate": "npu"}
    with pytest.raises(DeviceError, match=r"No dispatch library found (.|\n)*beside the file of --benchmark-binary"):
        nl.time(file, **options)
    (tmp_path / "libLiteRtDispatch_Maker.so").write_bytes(b"\x7fELF of a maker")
    (one,) = nl.time(file, **options).timed
    assert one.delegated == {"NPU": 1.0}
    assert one.setup.delegate == "npu"
    assert dict(one.setup.details)["libraries"]
    phone.refuse_on_delegate("npu", "MUL")
    try:
        with pytest.raises(nl.NetlatheError, match="Some ops are not accelerated"):
            nl.time(file, **options)
    finally:
        phone.refuse_on_delegate("npu")
    assert not phone.path("/data/local/tmp/netlathe").exists()


@on_a_phone
def test_what_a_tool_does_not_have_is_refused_with_the_tool_that_has_it(phone, tmp_path, program):
    file = saved(tmp_path, "two.tflite", model_files.two_and_two())
    with pytest.raises(DeviceError, match=r"TFLite's benchmark_model has no NPU; pass LiteRT's newer"):
        nl.time(file, device=phone.address, benchmark_binary=BENCHMARK_MODEL, delegate="npu", budget_s=0.1)
    with pytest.raises(DeviceError, match="LiteRT's newer benchmark_model has no NNAPI"):
        nl.time(file, device=phone.address, benchmark_binary=program, delegate="nnapi", budget_s=0.1)
