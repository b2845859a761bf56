"""The contract that every device keeps, and what is particular to each."""

from __future__ import annotations

import builtins
import dataclasses
import os
import sys

import pytest
import torch

from netlathe.archspace.blocks import Block, ConvBlock, LinearHead, MBConv, Pool, SeparableConv, Skip
from netlathe.archspace.forms.tflite import write_tflite
from netlathe.archspace.forms.torch import TorchGraph
from netlathe.archspace.graph import Graph, GraphBuilder, chain
from netlathe.archspace.ops import Activation, ActivationKind, ArgMax, Concat, Dequantize, DType, Quantize
from netlathe.archspace.precisions import mixed
from netlathe.profiler.device import Visit
from netlathe.profiler.devices import DeviceOptions, available_devices, open_device
from netlathe.profiler.devices.cuda import folded
from netlathe.profiler.devices.host import HostMonitor, os_name
from netlathe.profiler.devices.local import LocalDevice
from netlathe.profiler.errors import DeviceError, MeasurementError, UnsupportedGraphError
from netlathe.profiler.testing import SMALL, DeviceContract, SimulatedDevice, one_round

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
HOST_DEVICES = ["local", "onnxruntime"]


class TestEveryDevice(DeviceContract):
    @pytest.fixture(params=["simulated", *HOST_DEVICES, pytest.param("cuda", marks=needs_gpu)])
    def device(self, request):
        name = request.param
        with SimulatedDevice() if name == "simulated" else open_device(name, DeviceOptions(batch=1)) as found:
            yield found


def times(device, *keys, runs=3, warmups=1):
    return one_round(device, [Visit(key, runs, warmups) for key in keys])


@pytest.mark.parametrize("name", HOST_DEVICES)
def test_a_visit_on_this_computer_gives_a_time_per_run(name):
    with open_device(name) as device:
        device.load("x", SMALL.graph())
        assert [len(samples) for _, samples in one_round(device, [Visit("x", 2, 0), Visit("x", 5, 2)])] == [2, 5]


@pytest.mark.parametrize("name", HOST_DEVICES)
@pytest.mark.parametrize(
    "block",
    [
        MBConv(8, 8, 14, 14, se=0.25),
        MBConv(8, 16, 15, 15, 2, kernel=5, activation="hard_swish", se=0.25, padding="symmetric"),
        SeparableConv(8, 16, 14, 14, 2),
        Pool("avg", 8, 14, 14, stride=2),
        Pool("max", 8, 14, 14),
        LinearHead(8, 10, 7, 7),
        Skip(8, 16, 14, 14, 2),
    ],
    ids=str,
)
def test_every_kind_of_block_runs_on_this_computer(name: str, block: Block):
    with open_device(name, DeviceOptions(batch=2)) as device:
        device.load("x", block.graph(batch=2))
        ((_, samples),) = times(device, "x")
        assert len(samples) == 3


@pytest.mark.parametrize("name", HOST_DEVICES)
def test_threads_and_pinning_stand_in_the_setup_and_pinning_ends_with_the_device(name):
    before = os.sched_getaffinity(0)
    core = max(before)
    with open_device(name, DeviceOptions(cores=f"{1 << core:x}")) as device:
        assert os.sched_getaffinity(0) == {core}
        assert device.setup.core_mask == f"{1 << core:x}"
        assert device.setup.threads == 1
        device.load("x", SMALL.graph())
        assert len(times(device, "x")) == 1
    assert os.sched_getaffinity(0) == before
    with open_device(name) as unpinned:
        assert unpinned.setup != device.setup


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"threads": 0}, "threads"),
        ({"threads": 10_000}, "threads"),
        ({"batch": 0}, "batch"),
        ({"cores": "f" * 999}, "cores"),
        ({"cores": "big"}, "hexadecimal"),
        ({"delegate": "gpu"}, "for phones"),
        ({"dtype": "int4"}, "int4"),
    ],
)
@pytest.mark.parametrize("name", HOST_DEVICES)
def test_options_that_this_computer_does_not_have_are_refused(name, options, reason):
    with pytest.raises(DeviceError, match=reason):
        open_device(name, DeviceOptions(**options))


def test_what_the_runtime_says_about_a_graph_it_refuses_reaches_the_message():
    models = {SMALL.graph().key: b"not a model at all, really"}
    refused = pytest.raises(UnsupportedGraphError, match=r"litert does not run this graph: .*odel")
    with LocalDevice(models=models) as device, refused:
        device.load("x", SMALL.graph())


def test_a_given_file_is_what_runs():
    graph = SMALL.graph()
    models = {graph.key: write_tflite(graph, seed=7)}
    with LocalDevice(models=models) as device:
        device.load(graph.key, graph)
        ((_, times),) = one_round(device, [Visit(graph.key, 3, 1)])
    assert len(times) == 3


@pytest.mark.parametrize(
    "block",
    [
        MBConv(8, 8, 14, 14, se=0.25),
        MBConv(8, 16, 15, 15, 2, kernel=5, activation="hard_swish", se=0.25, padding="symmetric"),
        SeparableConv(8, 16, 14, 14, 2),
        Pool("avg", 8, 14, 14, stride=2),
        LinearHead(8, 10, 7, 7),
    ],
    ids=str,
)
@pytest.mark.parametrize("batch", [1, 3])
def test_int8_blocks_run_on_this_computer(batch: int, block: Block):
    with open_device("local", DeviceOptions(dtype="int8", batch=batch)) as device:
        assert (device.setup.dtype, device.setup.batch) == ("int8", batch)
        device.load("x", block.graph(batch=batch))
        ((_, samples),) = times(device, "x")
        assert len(samples) == 3


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_what_converts_runs_alone_with_real_values_on_its_own_side(dtype: str):
    with open_device("local", DeviceOptions(dtype=dtype)) as device:
        for op, dtypes in ((Quantize(), ()), (Dequantize(), (DType.INT8,))):
            builder = GraphBuilder((1, 8, 8, 16), dtypes=dtypes)
            builder.add("op", op, 0)
            device.load(op.kind, builder.build())
            ((_, samples),) = times(device, op.kind)
            assert len(samples) == 3


@pytest.mark.parametrize("choices", ["010", "101", "111", "002", "222"])
def test_networks_of_several_precisions_run_on_this_computer(choices: str):
    graph = chain(
        [
            ("b00", ConvBlock(3, 8, 16, 16, 2).graph()),
            ("b01", MBConv(8, 8, 8, 8, se=0.25).graph()),
            ("head", LinearHead(8, 10, 8, 8).graph()),
        ]
    )
    precisions = dict(
        zip(("b00", "b01", "head"), (("float32", "int8", "int8-weights")[int(c)] for c in choices), strict=True)
    )
    with open_device("local") as device:
        device.load("x", mixed(graph, {node.name: precisions[node.scope] for node in graph.nodes}))
        ((_, samples),) = times(device, "x")
        assert len(samples) == 3


def test_a_result_of_integers_is_timed_on_onnxruntime():
    builder = GraphBuilder((1, 8, 8, 16))
    builder.add("arg_max", ArgMax(), 0)
    with open_device("onnxruntime") as device:
        device.load("x", builder.build())
        ((_, samples),) = times(device, "x")
        assert len(samples) == 3


def test_what_runs_in_int8_is_an_int8_file(monkeypatch):
    graph, written = SMALL.graph(), []

    def keep(graph: Graph, **options: str) -> bytes:
        written.append(write_tflite(graph, **options))
        return written[-1]

    monkeypatch.setattr("netlathe.profiler.devices.local.write_tflite", keep)
    with LocalDevice(dtype="int8") as device:
        device.load("x", graph)
    assert written[-1] == write_tflite(graph, dtype="int8")


def test_setups_of_different_dtypes_differ():
    with LocalDevice(dtype="int8") as int8, LocalDevice() as float32:
        assert int8.setup != float32.setup
        assert dataclasses.replace(int8.setup, dtype="float32") == float32.setup


@pytest.mark.parametrize(("of_file", "of_device"), [("float32", "int8"), ("int8", "float32")])
def test_a_given_file_of_another_dtype_is_refused(of_file: str, of_device: str):
    graph = SMALL.graph()
    models = {graph.key: write_tflite(graph, dtype=of_file)}
    refused = pytest.raises(UnsupportedGraphError, match=f"(?i)type {of_device}.*type {of_file}")
    with LocalDevice(models=models, dtype=of_device) as device, refused:
        device.load("x", graph)


def test_a_graph_without_an_int8_form_is_unsupported_in_int8_and_runs_in_float32():
    builder = GraphBuilder((1, 8, 8, 4))
    gate = builder.add("gate", Activation(ActivationKind.SIGMOID), 0)
    builder.add("join", Concat(), gate, 0)
    refused = pytest.raises(UnsupportedGraphError, match="'join': the op CONCATENATION has no int8 form")
    with LocalDevice(dtype="int8") as device, refused:
        device.load("x", builder.build())
    with LocalDevice() as device:
        device.load("x", builder.build())
        assert len(times(device, "x")) == 1


def test_an_unexpected_failure_while_loading_is_not_taken_for_an_unsupported_graph(monkeypatch):
    def out_of_memory(graph: Graph, **options: str) -> bytes:
        raise MemoryError("8 GiB")

    def broken(graph: Graph, **options: str) -> bytes:
        raise KeyError("oops")

    with LocalDevice() as device:
        for failure, words in ((out_of_memory, "out of memory"), (broken, "oops")):
            monkeypatch.setattr("netlathe.profiler.devices.local.write_tflite", failure)
            with pytest.raises(MeasurementError, match=words):
                device.load("x", SMALL.graph())


def test_an_unknown_device_is_refused_with_the_known_ones():
    with pytest.raises(DeviceError, match="'toaster'; known: local, onnxruntime, cuda"):
        open_device("toaster")


def test_without_onnxruntime_its_device_says_what_to_install(monkeypatch):
    real_import = builtins.__import__

    def without(name, *rest, **options):
        if name == "onnxruntime":
            raise ImportError("No module named 'onnxruntime'")
        return real_import(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    with pytest.raises(DeviceError, match=r"pip install 'netlathe\[onnxruntime\]'"):
        open_device("onnxruntime")
    row = next(row for row in available_devices(check=True) if row.name == "onnxruntime")
    assert (row.state, row.hint) == ("unavailable", "pip install 'netlathe[onnxruntime]'")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a computer without a CUDA GPU")
def test_without_a_gpu_the_cuda_device_says_so():
    with pytest.raises(DeviceError, match="no CUDA GPU; check nvidia-smi"):
        open_device("cuda")


@pytest.mark.parametrize("options", [{"threads": 2}, {"cores": "1"}])
def test_cuda_takes_no_options_of_a_cpu(options):
    with pytest.raises(DeviceError, match="leave them out"):
        open_device("cuda", DeviceOptions(**options))


def test_folding_batch_norm_for_the_gpu_leaves_the_result_as_it_is():
    graph = MBConv(8, 8, 14, 14, se=0.25).graph()
    module = TorchGraph(graph, generator=torch.Generator().manual_seed(0))
    x = torch.randn(4, 8, 14, 14, generator=torch.Generator().manual_seed(1))
    module(x)  # moves the running statistics
    expected = module.eval()(x)
    result = folded(module)
    assert not any(isinstance(part, torch.nn.BatchNorm2d) for part in result.modules())
    torch.testing.assert_close(result(x), expected, rtol=1e-4, atol=1e-5)


@needs_gpu
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_the_gpu_measures_batches_of_eight_in_either_precision(dtype):
    with open_device("cuda", DeviceOptions(dtype=dtype)) as device:
        assert (device.setup.batch, device.setup.dtype) == (8, dtype)
        device.load("x", MBConv(16, 16, 28, 28, se=0.25).graph(batch=8))
        ((_, samples),) = times(device, "x", runs=10)
        assert max(samples) < 1.5 * min(samples) + 0.01


@needs_gpu
def test_the_gpu_refuses_unknown_precision_and_empty_batches():
    for options in ({"dtype": "int4"}, {"batch": 0}):
        with pytest.raises(DeviceError):
            open_device("cuda", DeviceOptions(**options))


def test_a_checked_device_was_opened():
    rows = {row.name: row for row in available_devices(check=True)}
    assert list(rows)[-3:] == ["local", "onnxruntime", "cuda"]
    assert rows["local"].state == "ready"
    assert "litert" in rows["local"].detail
    assert rows["cuda"].state == ("ready" if torch.cuda.is_available() else "unavailable")


def test_a_device_that_was_not_tried_is_not_called_ready(monkeypatch):
    monkeypatch.setattr("netlathe.profiler.devices.listing._has_nvidia_driver", lambda: True)
    monkeypatch.setattr("netlathe.profiler.devices.listing._version", {"torch": "2.9.1+cu130"}.get)
    rows = {row.name: row for row in available_devices()}
    assert {rows[name].state for name in ("local", "onnxruntime", "cuda")} == {"installed"}
    assert rows["cuda"].detail == "PyTorch 2.9.1+cu130 and an NVIDIA driver"


@pytest.mark.parametrize(
    ("torch_version", "has_driver", "reason"),
    [("2.9.1+cpu", True, "build for CPUs"), ("2.9.1", False, "no NVIDIA driver")],
)
def test_a_gpu_that_cannot_work_is_unavailable_without_importing_torch(monkeypatch, torch_version, has_driver, reason):
    monkeypatch.setattr("netlathe.profiler.devices.listing._has_nvidia_driver", lambda: has_driver)
    monkeypatch.setattr("netlathe.profiler.devices.listing._version", lambda name: torch_version)
    row = next(row for row in available_devices() if row.name == "cuda")
    assert row.state == "unavailable"
    assert reason in row.detail
    assert row.hint


def test_a_runtime_that_is_not_installed_says_what_to_install(monkeypatch):
    monkeypatch.setattr("netlathe.profiler.devices.listing.find_spec", lambda name: None)
    rows = {row.name: row for row in available_devices()}
    assert [rows[name].state for name in ("local", "onnxruntime", "cuda")] == ["unavailable"] * 3
    assert rows["onnxruntime"].hint == "pip install 'netlathe[onnxruntime]'"


def test_the_os_is_named_without_its_patch_level():
    assert os_name().split()[1].count(".") == 1


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_other_programs_load_is_what_this_one_did_not_use(tmp_path, monkeypatch):
    tick = os.sysconf("SC_CLK_TCK")
    seconds = {"all": 100.0, "own": 10.0, "now": 0.0}
    monkeypatch.setattr(
        "netlathe.profiler.devices.host._read", lambda path: f"cpu {seconds['all'] * tick:.0f} 0 0 900 0 0 0 0 0\n"
    )
    monkeypatch.setattr("time.process_time", lambda: seconds["own"])
    monkeypatch.setattr("time.monotonic", lambda: seconds["now"])
    monitor = HostMonitor()
    seconds.update(all=107.0, own=14.0, now=2.0)
    assert monitor.conditions()["other_cpus"] == pytest.approx(1.5)
