"""A phone runs any .tflite file as it is: in the sizes that are asked for, in part on a delegate, kernel by kernel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from loopback.adbd import AdbDaemon
from loopback.phone import BENCHMARK_MODEL, LoopbackPhone, loopback_unavailable
from phones import leftovers

import netlathe as nl
from netlathe.archspace.blocks import MBConv
from netlathe.archspace.forms.model_file import open_model_file
from netlathe.archspace.forms.onnx import write_onnx
from netlathe.archspace.forms.tflite import write_tflite
from netlathe.archspace.forms.tflite_outline import with_shapes
from netlathe.events import Listener
from tests import model_files
from tests.model_files import saved

pytestmark = pytest.mark.usefixtures("little_effort")
on_a_phone = pytest.mark.skipif(loopback_unavailable() is not None, reason=str(loopback_unavailable()))
GRAPH = MBConv(24, 24, 28, 28).graph()


@pytest.fixture(scope="module")
def phone(tmp_path_factory):
    with LoopbackPhone(tmp_path_factory.mktemp("phone")) as found, AdbDaemon(found) as daemon:
        found.address = daemon.address
        yield found


@pytest.fixture(autouse=True)
def _healthy(request):
    yield
    if "phone" in request.fixturenames:
        phone = request.getfixturevalue("phone")
        phone.clear_faults()
        phone.refuse_on_delegate("gpu")


class Heard(Listener):
    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def timed(phone, *files: Path, **options):
    return nl.time(list(files), device=phone.address, benchmark_binary=BENCHMARK_MODEL, budget_s=0.1, **options)


@on_a_phone
def test_files_of_all_kinds_stand_in_one_table(phone, tmp_path):
    files = [
        saved(tmp_path, "two.tflite", model_files.two_and_two()),
        saved(tmp_path, "half.tflite", model_files.reshaped("FLOAT16")),
        saved(tmp_path, "int8.tflite", write_tflite(GRAPH, dtype="int8")),
        saved(tmp_path, "tokens.tflite", model_files.embedding(rows=100)),  # benchmark_model takes indices up to 99
        saved(tmp_path, "other.onnx", write_onnx(GRAPH)),
    ]
    heard = Heard()
    report = timed(phone, *files, op_profile=True, progress=heard)
    assert [one.error for one in report.timed] == [""] * 5
    for one in report.timed:
        assert one.latency_ms > 0
        assert min(one.first_inference_ms, one.init_ms, one.peak_memory_mb) > 0
        assert one.observation.peak_memory_of == "all of benchmark_model's process"
    assert 0 < report.timed[2].p5_ms <= report.timed[2].median_ms <= report.timed[2].p95_ms
    assert report.timed[2].delegated == {"XNNPACK": 1.0}
    kernels = report.timed[2].to_json()
    assert len(kernels["kernels"]) == 4
    assert kernels["kernels_ms"] == pytest.approx(kernels["kernel_runs_ms"], rel=0.05)
    assert any(
        "other.onnx runs on" in note and "as a .tflite file that netlathe wrote of it" in note for note in heard.notes
    )
    assert leftovers(phone) == []


@on_a_phone
def test_the_gpu_takes_a_part_and_says_how_much_of_it(phone, tmp_path):
    phone.refuse_on_delegate("gpu", "ADD")
    file = saved(tmp_path, "two.tflite", model_files.two_and_two())
    report = timed(phone, file, delegate="gpu")
    assert report.timed[0].delegated == {"GPU (OpenCL)": 0.5}


@on_a_phone
def test_a_file_of_which_the_gpu_takes_nothing_has_no_time_of_the_gpu(phone, tmp_path):
    phone.refuse_on_delegate("gpu", "GATHER")
    file = saved(tmp_path, "tokens.tflite", model_files.embedding(rows=100))
    with pytest.raises(nl.NetlatheError, match=r"the GPU delegate .*executes nothing of it"):
        timed(phone, file, delegate="gpu")


@on_a_phone
def test_open_sizes_are_those_that_are_asked_for(phone, tmp_path):
    file = saved(tmp_path, "open.tflite", model_files.open_sizes())
    small, large = (timed(phone, file, shapes={"": (1, n, n, 3)}).timed[0].latency_ms for n in (16, 256))
    assert large > 20 * small  # 256 times the pixels


@on_a_phone
def test_a_crash_gives_an_error_and_leaves_the_others_times(phone, tmp_path):
    good = saved(tmp_path, "good.tflite", model_files.two_and_two())
    bad = saved(tmp_path, "bad.tflite", model_files.custom("MyOwnOp"))
    heard = Heard()
    reports = []
    heard.report = reports.append
    with pytest.raises(nl.NetlatheError, match=r"bad.tflite could not be timed: (.|\n)*MyOwnOp"):
        timed(phone, good, bad, progress=heard)
    first, second = reports[0].timed
    assert first.latency_ms > 0
    assert second.latency_ms is None


@on_a_phone
def test_a_phone_s_options_are_none_of_the_computer_s_beside_it(phone, tmp_path):
    file = saved(tmp_path, "two.tflite", model_files.two_and_two())
    report = nl.time(
        file, device=[phone.address, "local"], benchmark_binary=BENCHMARK_MODEL, delegate="gpu", budget_s=0.1
    )
    assert [one.delegated for one in report.timed] == [{"GPU (OpenCL)": 1.0}, {"XNNPACK": 1.0}]
    with pytest.raises(nl.DeviceError, match="local: the option delegate is for phones"):
        nl.time(file, device="local", delegate="gpu", budget_s=0.1)


@on_a_phone
def test_nnapi_is_said_to_be_deprecated(phone, tmp_path):
    heard = Heard()
    timed(phone, saved(tmp_path, "two.tflite", model_files.two_and_two()), delegate="nnapi", progress=heard)
    assert any("NNAPI is deprecated since Android 15" in note for note in heard.notes)


@pytest.mark.parametrize("size", [8, 33])
def test_a_file_with_its_sizes_written_in_computes_what_the_resized_one_does(tmp_path, size):
    file = open_model_file(saved(tmp_path, "open.tflite", model_files.open_sizes()), {"": (2, size, size, 3)})
    content = file.path.read_bytes()
    image = np.random.default_rng(0).normal(size=(2, size, size, 3)).astype(np.float32)
    written, resized = Interpreter(model_content=with_shapes(content, file)), Interpreter(model_content=content)
    resized.resize_tensor_input(resized.get_input_details()[0]["index"], image.shape)
    found = []
    for interpreter in (written, resized):
        interpreter.allocate_tensors()
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
        interpreter.invoke()
        found.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))
    assert found[0].shape == (2, size - 2, size - 2, 4) or found[0].shape == (2, size, size, 4)
    np.testing.assert_array_equal(*found)


def test_a_file_of_fixed_sizes_is_sent_as_it_is(tmp_path):
    file = open_model_file(saved(tmp_path, "a.tflite", model_files.two_and_two()))
    content = file.path.read_bytes()
    assert with_shapes(content, file) is content
