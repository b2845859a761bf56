"""`netlathe time` runs any model file as it is: all dtypes, several inputs and outputs, open sizes; and what it cannot
run, it refuses in one error that names the file, the place and the remedy."""

from __future__ import annotations

import csv
import ctypes
import json
import math
import os
import signal
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from test_cli import netlathe, refusal

import netlathe as nl
from netlathe.archspace.block_names import parse_block
from netlathe.archspace.errors import FormatError, NetlatheError
from netlathe.archspace.forms.model_file import open_model_file
from netlathe.archspace.forms.onnx import write_onnx
from netlathe.archspace.forms.tflite import write_tflite
from netlathe.profiler import fresh_process, litert_profile
from netlathe.profiler.devices import host_files
from netlathe.profiler.errors import MeasurementError
from netlathe.profiler.protocol import Plan
from tests import model_files
from tests.model_files import saved

BLOCK = "conv_k3_s1_c3-4_16x16_relu6"
QUICK = ("--budget-s", 1)


@pytest.fixture(autouse=True)
def _few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that no test waits until the rounds of so small files agree, or its time is up."""
    monkeypatch.setattr("netlathe.timing.PLAN", Plan(min_rounds=3, max_rounds=4))


def timed(*files: Path, **options: Any) -> dict[str, Any]:
    """The only one's, or the first one's, object of the report; a tenth of a second is time enough for three rounds."""
    report = nl.time(list(files), budget_s=0.1, **options)
    assert all(one.measurement and one.measurement.latency_ms > 0 for one in report.timed)
    return report.to_json()["timed"][0]  # type: ignore[no-any-return]


TFLITE_DTYPES = ("FLOAT16", "FLOAT32", "FLOAT64", "INT8", "UINT8", "INT16", "INT32", "INT64", "BOOL")


EVERY = pytest.mark.parametrize("apart", [3, pytest.param(1, marks=pytest.mark.slow)])


@EVERY
def test_a_tflite_of_any_dtype_is_timed(tmp_path: Path, apart: int) -> None:
    dtypes = TFLITE_DTYPES[::apart]
    files = [saved(tmp_path, f"{dtype}.tflite", model_files.reshaped(dtype)) for dtype in dtypes]
    report = nl.time(files, budget_s=0.1)
    assert [one.file.inputs[0].dtype for one in report.timed if one.file] == [d.lower() for d in dtypes]
    assert all(one.measurement for one in report.timed)


@EVERY
def test_an_onnx_of_any_dtype_is_timed(tmp_path: Path, apart: int) -> None:
    dtypes = [dtype for dtype in model_files.ONNX_DTYPES if dtype != "object"][::apart]
    files = [saved(tmp_path, f"{dtype}.onnx", model_files.onnx_identity(dtype)) for dtype in dtypes]
    report = nl.time(files, device="onnxruntime", budget_s=0.1)
    assert [one.file.inputs[0].dtype for one in report.timed if one.file] == dtypes
    assert all(one.measurement for one in report.timed)


def test_several_inputs_and_outputs_are_run(tmp_path: Path) -> None:
    one = timed(saved(tmp_path, "two.tflite", model_files.two_and_two()))
    assert [i["name"] for i in one["inputs"]] == ["left", "right"]
    file = saved(tmp_path, "two.onnx", model_files.onnx_two_and_two())
    shapes = {"a": (4, 8), "b": (4, 8)}
    assert timed(file, device="onnxruntime", shapes=shapes)["inputs"][1]["shape"] == [4, 8]


def test_tokens_stay_within_a_small_table(tmp_path: Path) -> None:
    one = timed(saved(tmp_path, "tokens.tflite", model_files.embedding(rows=2)))
    assert one["delegated"] == {"XNNPACK": 0.0}  # it has no GATHER


def test_open_sizes_are_run_as_the_shape_says_and_cost_what_it_costs(tmp_path: Path) -> None:
    file = saved(tmp_path, "open.tflite", model_files.open_sizes())
    small, large = (timed(file, shapes={"": (1, n, n, 3)}) for n in (16, 128))
    assert large["inputs"][0]["shape"] == [1, 128, 128, 3]
    assert large["latency_ms"] > 8 * small["latency_ms"]  # 64 times the pixels


def test_an_open_batch_is_the_files_own_and_any_other_that_is_given(tmp_path: Path) -> None:
    file = saved(tmp_path, "batch.tflite", model_files.open_batch())
    result = netlathe("time", file, *QUICK)
    assert "the batch of input 'x' is open, and is 1 as in the file" in result.stderr
    assert timed(file, shapes={"": (7, 8)})["inputs"][0]["shape"] == [7, 8]


def test_what_a_start_costs_is_told_of_every_file(tmp_path: Path) -> None:
    content = write_tflite(parse_block("mbconv_k3_e6_s1_c64-64_28x28_relu6").graph())
    one = timed(saved(tmp_path, "a.tflite", content))
    assert one["init_ms"] > 0
    assert one["first_inference_ms"] > 0
    assert one["delegated"] == {"XNNPACK": 1.0}
    assert one["peak_memory_mb"] > len(content) / 2**20
    assert "process of its own" in one["peak_memory_of"]


def test_peak_memory_grows_by_what_the_file_needs(tmp_path: Path) -> None:
    file = saved(tmp_path, "open.tflite", model_files.open_sizes())
    small, large = (timed(file, shapes={"": (1, n, n, 3)})["peak_memory_mb"] for n in (8, 1024))
    assert large - small > 4 * 1024 * 1024 * 3 / 2**20  # the image alone


def test_the_percentiles_are_those_of_the_samples_in_the_report(tmp_path: Path) -> None:
    one = timed(saved(tmp_path, "a.onnx", model_files.onnx_matmul()), device="onnxruntime")
    samples = [ms for run in one["samples_ms"] for ms in run]
    assert len(one["samples_ms"]) == one["rounds"]
    assert one["median_ms"] == pytest.approx(statistics.median(samples))
    assert one["p95_ms"] == pytest.approx(np.percentile(samples, 95))


def test_the_kernels_of_onnx_runtime_are_told_with_their_sum_beside_the_whole(tmp_path: Path) -> None:
    file = saved(tmp_path, "a.onnx", model_files.onnx_matmul(256))
    one = timed(file, device="onnxruntime", op_profile=True)
    (kernel,) = one["kernels"]
    assert (kernel["node_type"], kernel["times_called"]) == ("MatMul", 1)
    assert 0 < one["kernels_ms"] == kernel["mean_ms"] <= one["kernel_runs_ms"]
    assert one["delegated"] == {"CPUExecutionProvider": 1.0}
    shown = netlathe("time", file, "--device", "onnxruntime", "--op-profile", *QUICK)
    assert "sum" in shown.stdout
    assert "unwatched, the median is" in " ".join(shown.stderr.split())


def test_the_kernels_of_litert_are_told_in_the_sizes_that_are_run(tmp_path: Path) -> None:
    file = saved(tmp_path, "open.tflite", model_files.open_sizes())
    one = timed(file, shapes={"": (1, 256, 256, 3)}, op_profile=True)
    assert [kernel["node_type"].partition(" (")[0] for kernel in one["kernels"]] == ["Convolution", "Add"]
    assert {kernel["times_called"] for kernel in one["kernels"]} == {1}
    assert 0 < one["kernels_ms"] < 1.1 * one["kernel_runs_ms"]


def test_kernels_are_told_of_several_inputs_and_other_dtypes(tmp_path: Path) -> None:
    contents = {
        "two": model_files.two_and_two(),
        "tokens": model_files.embedding(),
        "half": model_files.reshaped("FLOAT16"),
    }
    files = [saved(tmp_path, f"{name}.tflite", content) for name, content in contents.items()]
    report = nl.time(files, op_profile=True, budget_s=0.1)
    assert [len(one.observation.op_times) for one in report.timed if one.observation] == [2, 1, 1]


def test_a_runtime_without_a_profiler_leaves_all_but_the_kernels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = object.__new__(litert_profile._Profiled)
    model._library = ctypes.CDLL("libm.so.6")
    with pytest.raises(MeasurementError, match="this LiteRT has no function LiteRtCreateEnvironment"):
        model._make("LiteRtCreateEnvironment")
    real = host_files.start_file

    def start(*arguments: Any, op_profile: bool = False, **options: Any) -> Any:
        if op_profile:
            raise MeasurementError("LiteRT crashed")
        return real(*arguments, **options)

    monkeypatch.setattr(host_files, "start_file", start)
    file = saved(tmp_path, "a.tflite", model_files.two_and_two())
    one = timed(file, op_profile=True)
    assert (one["kernels"], one["kernels_ms"]) == ([], None)
    assert one["init_ms"] > 0


def test_a_node_in_a_loop_counts_as_often_as_it_runs() -> None:
    from netlathe.profiler.file_runtimes import PROFILED_WARMUPS, read_node_times

    node = {"cat": "Node", "name": "add_kernel_time", "dur": 10, "args": {"op_name": "Add", "provider": "CPU"}}
    calm = [*[node] * 3, {"cat": "Session", "name": "model_run", "dur": 50}]
    disturbed = [{**node, "dur": 9000}, *calm[1:3], {**calm[3], "dur": 9040}]
    ((kernel,), whole_ms, shares) = read_node_times([*calm * (PROFILED_WARMUPS + 2), *disturbed * 2], 4)
    assert (kernel.times_called, kernel.mean_ms, whole_ms, shares) == (3, 0.01, 0.05, {"CPU": 1.0})
    assert kernel.share == pytest.approx(0.6)


def test_files_and_devices_stand_in_one_table(tmp_path: Path) -> None:
    graph = parse_block(BLOCK).graph()
    files = [saved(tmp_path, "a.tflite", write_tflite(graph)), saved(tmp_path, "b.onnx", write_onnx(graph))]
    table = tmp_path / "t.csv"
    told = netlathe("time", *files, "--device", "local", "--device", "onnxruntime", "--csv", table, *QUICK, "--json")
    found = json.loads(told.stdout.splitlines()[-1])
    assert [(Path(one["name"]).name, one["device"]) for one in found["timed"]] == [
        ("a.tflite", "local"), ("b.onnx", "local"), ("a.tflite", "onnxruntime"), ("b.onnx", "onnxruntime"),
    ]  # fmt: skip
    assert all(one["latency_ms"] > 0 for one in found["timed"])
    assert set(found["setups"]) == {"local", "onnxruntime"}
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert [float(row["median_ms"]) for row in rows] == [one["median_ms"] for one in found["timed"]]
    assert "runs on onnxruntime as a .onnx file that netlathe wrote of it" in " ".join(told.stderr.split())


def test_a_file_that_one_of_the_devices_cannot_run_is_timed_on_the_other(tmp_path: Path) -> None:
    files = [
        saved(tmp_path, "a.tflite", model_files.two_and_two()),
        saved(tmp_path, "b.onnx", model_files.onnx_sorted()),
    ]
    result = netlathe("time", *files, "--device", "local", "--device", "onnxruntime", "--json", *QUICK)
    report = json.loads(result.stdout.splitlines()[0])
    told = {(Path(one["name"]).name, one["device"]): (one["latency_ms"], one["error"]) for one in report["timed"]}
    assert told["b.onnx", "onnxruntime"][0] > 0
    assert told["b.onnx", "local"][0] is None
    assert "local runs .tflite files" in told["b.onnx", "local"][1]
    assert result.exit_code == 1


def test_int8_and_float32_files_stand_in_one_table_each_with_its_own_dtype(tmp_path: Path) -> None:
    graph = parse_block(BLOCK).graph()
    files = [saved(tmp_path, f"{dtype}.tflite", write_tflite(graph, dtype=dtype)) for dtype in ("float32", "int8")]
    report = nl.time(files, budget_s=0.1)
    assert [one.setup.dtype for one in report.timed if one.setup] == ["float32", "int8"]


def test_one_that_fails_leaves_the_others_times(tmp_path: Path) -> None:
    good, bad = (
        saved(tmp_path, "good.tflite", model_files.two_and_two()),
        saved(tmp_path, "bad.tflite", model_files.custom()),
    )
    table = tmp_path / "t.csv"
    result = netlathe("time", good, bad, "--csv", table, "--json", *QUICK)
    assert result.exit_code == 1
    first, second = csv.DictReader(table.read_text().splitlines())
    assert float(first["latency_ms"]) > 0
    assert second["latency_ms"] == ""
    assert "MyOwnOp" in second["error"]


def test_a_device_that_cannot_be_opened_leaves_the_others_times(tmp_path: Path) -> None:
    file = saved(tmp_path, "a.tflite", model_files.two_and_two())
    result = netlathe("time", file, "--device", "local", "--device", "tcp:127.0.0.1:1", *QUICK)
    assert result.exit_code == 1
    assert "a.tflite" in result.stdout
    assert "127.0.0.1:1" in result.stderr


# what cannot be run


def test_open_sizes_without_a_shape_are_refused_with_the_option_to_give(tmp_path: Path) -> None:
    file = saved(tmp_path, "open.tflite", model_files.open_sizes())
    assert "--shape image=1x224x224x3" in refusal("time", file)
    onnx_file = saved(tmp_path, "open.onnx", model_files.onnx_two_and_two())
    said = refusal("time", onnx_file, "--device", "onnxruntime")
    assert f"{onnx_file}: leaves sizes of its input open: a (?x8 float32), b (?x8 float32)" in said
    assert "--shape a=1x8 --shape b=1x8" in said


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ("1x3x32x32", "these sizes fit in another layout"),
        ("1x32x32", "input 'image' is ?x?x?x3 in the file, so it cannot be 1x32x32"),
        ("picture=1x32x32x3", "has no input 'picture'; its inputs are image"),
        ("1x32xbigx3", "expected sizes such as 1x3x224x224"),
        ("1x0x32x3", "expected sizes such as 1x3x224x224"),
    ],
)
def test_a_shape_that_does_not_fit_is_refused(tmp_path: Path, shape: str, said: str) -> None:
    file = saved(tmp_path, "open.tflite", model_files.open_sizes())
    assert said in refusal("time", file, "--shape", shape)


def test_a_shape_given_from_python_that_is_none_is_refused(tmp_path: Path) -> None:
    file = saved(tmp_path, "open.tflite", model_files.open_sizes())
    for wrong in ((1, 0, 32, 3), (1, 32.5, 32, 3), (1, "big", 32, 3)):
        with pytest.raises(nl.FormatError, match=r"open\.tflite: input 'image' cannot have the shape \(1, "):
            nl.time(file, shapes={"image": wrong})  # type: ignore[dict-item]


def test_an_input_gets_one_shape(tmp_path: Path) -> None:
    file = saved(tmp_path, "open.tflite", model_files.open_sizes())
    for command in (["time"], ["predict", "--predictor", "pixel4-cpu"]):
        sizes = ("--shape", "image=1x32x32x3", "--shape", "image=1x64x64x3")
        assert "'image' has a shape already" in refusal(*command, file, *sizes)


def test_a_shape_against_a_fixed_size_is_refused(tmp_path: Path) -> None:
    file = saved(tmp_path, "fixed.tflite", model_files.two_and_two())
    assert "input 'left' is 1x8 in the file, so it cannot be 2x8; leave --shape out" in refusal(
        "time", file, "--shape", "left=2x8"
    )
    assert "has 2 inputs, so --shape must name each" in refusal("time", file, "--shape", "1x8")


def test_a_custom_op_that_litert_lacks_is_named(tmp_path: Path) -> None:
    said = refusal("time", saved(tmp_path, "own.tflite", model_files.custom("MyOwnOp")))
    assert "own.tflite could not be timed: LiteRT does not run this file" in said
    assert "MyOwnOp is a custom op" in said
    node = helper.make_node("Mine", ["x"], ["y"], domain="my.company")
    sizes: Any = ("float32", (2, 8))
    model = model_files.onnx_model([node], {"x": sizes}, {"y": sizes}, domains=["my.company"])
    said = refusal("time", saved(tmp_path, "own.onnx", model), "--device", "onnxruntime")
    assert "my.company.Mine is a custom op" in said


def test_a_model_that_branches_runs_and_says_that_its_time_depends_on_values(tmp_path: Path) -> None:
    result = netlathe("time", saved(tmp_path, "branch.tflite", model_files.branching()), *QUICK)
    assert result.exit_code == 0
    assert "has control flow (IF), so its time depends on its inputs" in " ".join(result.stderr.split())


def test_encrypted_empty_and_missing_files_are_told_apart(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 256, 4096, np.uint8).tobytes()
    for suffix, device in (("tflite", "local"), ("onnx", "onnxruntime")):
        for name, content, said in (("noise", noise, "encrypted"), ("empty", b"", "the file is empty")):
            file = saved(tmp_path, f"{name}.{suffix}", content)
            answered = refusal("time", file, "--device", device)
            assert str(file) in answered
            assert said in answered
        assert "there is no such file" in refusal("time", tmp_path / f"none.{suffix}", "--device", device)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9, 0.999])
def test_a_truncated_file_gives_an_error_and_no_number(tmp_path: Path, share: float) -> None:
    graph = parse_block("mbconv_k3_e4_s1_c24-24_4x4_relu6").graph()
    for name, content in (("a.tflite", write_tflite(graph)), ("a.onnx", write_onnx(graph))):
        file = saved(tmp_path, name, content[: int(share * len(content))])
        said = refusal("time", file, "--device", "local" if name.endswith("tflite") else "onnxruntime")
        assert str(file) in said
        assert "truncated" in said or "missing" in said


def test_weights_that_are_not_beside_the_file_are_named(tmp_path: Path) -> None:
    file = tmp_path / "big.onnx"
    options: dict[str, Any] = {"save_as_external_data": True, "location": "big.weights", "size_threshold": 0}
    onnx.save_model(model_files.onnx_matmul(), str(file), **options)
    assert timed(file, device="onnxruntime")["latency_ms"] > 0
    weights = tmp_path / "big.weights"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-8])
    assert f"its weights in 'big.weights' are truncated: they end at byte {len(whole)}" in refusal(
        "time", file, "--device", "onnxruntime"
    )
    weights.unlink()
    assert "keeps its weights in 'big.weights', which is not beside it" in refusal(
        "time", file, "--device", "onnxruntime"
    )


def test_a_file_beyond_two_gigabytes_is_refused_without_reading_it(tmp_path: Path) -> None:
    file = tmp_path / "huge.onnx"
    with file.open("wb") as stream:
        stream.truncate(2**31 + 10)  # sparse
    assert "an .onnx file ends at 2 GB; keep the weights beside it" in refusal("time", file, "--device", "onnxruntime")


def test_text_inputs_are_refused(tmp_path: Path) -> None:
    file = saved(tmp_path, "text.onnx", model_files.onnx_identity("object"))
    assert "input 'x' takes text" in refusal("time", file, "--device", "onnxruntime")


def test_a_file_for_another_runtime_that_netlathe_cannot_translate_says_where_to_time_it(tmp_path: Path) -> None:
    said = refusal("time", saved(tmp_path, "a.onnx", model_files.onnx_sorted()), "--device", "local")
    assert "local runs .tflite files, and netlathe cannot translate this .onnx file" in said
    assert "--device onnxruntime" in said


def test_a_runtime_that_crashes_ends_only_its_own_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = open_model_file(saved(tmp_path, "a.tflite", model_files.two_and_two()))
    crash = f"import os; os.kill(os.getpid(), {int(signal.SIGSEGV)})"
    real = fresh_process.subprocess.run
    monkeypatch.setattr(
        fresh_process.subprocess, "run", lambda command, **options: real([command[0], "-c", crash], **options)
    )
    with pytest.raises(MeasurementError, match=r"LiteRT crashed \(SIGSEGV\) on this file"):
        fresh_process.start_file(file, "LiteRT", threads=1)
    with pytest.raises(NetlatheError, match="crashed"):
        nl.time(file.path, budget_s=0.1)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores cannot be chosen here")
def test_a_file_is_started_on_the_cores_that_are_asked_for(tmp_path: Path) -> None:
    file = saved(tmp_path, "a.tflite", model_files.two_and_two())
    assert math.isfinite(timed(file, cores="1")["latency_ms"])


def test_a_shape_without_a_file_is_refused() -> None:
    assert "--shape gives sizes to the inputs of a .tflite or .onnx file" in refusal("time", BLOCK, "--shape", "1x8")


def test_a_torch_module_is_timed_through_a_file_of_its_own() -> None:
    import torch

    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.GELU(), torch.nn.Flatten(), torch.nn.Linear(1568, 5)
    )
    module.train()
    report = nl.time(module, (torch.zeros(1, 3, 16, 16),), device="onnxruntime", budget_s=0.1)
    (one,) = report.timed
    assert one.name == "Sequential"
    assert one.latency_ms is not None
    assert one.latency_ms > 0
    assert module.training  # left as it was


def test_a_torch_module_that_netlathe_reads_runs_where_tflite_runs() -> None:
    import torch

    module = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(8, 4, 1))
    report = nl.time(module, (torch.zeros(1, 3, 16, 16),), budget_s=0.1)
    assert report.timed[0].delegated == {"XNNPACK": 1.0}


def test_a_file_of_the_current_folder_is_not_taken_for_a_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "numpy.py").write_text("raise RuntimeError('the wrong numpy')")
    monkeypatch.chdir(tmp_path)
    assert timed(saved(tmp_path, "a.tflite", model_files.two_and_two()))["latency_ms"] > 0


def test_a_torch_module_without_inputs_or_that_torch_cannot_export_is_refused() -> None:
    import torch

    class Broken(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            raise ValueError("this module never works")

    with pytest.raises(FormatError, match="a torch module is timed with inputs"):
        nl.time(torch.nn.ReLU())
    with pytest.raises(FormatError, match="never works"):
        nl.time(Broken(), (torch.zeros(1),), device="onnxruntime")
