"""A phone from the command line: devices, profile, fit, clean, as scripts rely on them."""

from __future__ import annotations

import dataclasses
import json

import pytest
from disturbed import disturb
from loopback.adbd import AdbDaemon
from loopback.phone import BENCHMARK_MODEL, PIXEL_8, LoopbackPhone, loopback_unavailable
from loopback.private_adb import Adb, wait_until
from test_cli import answer, netlathe, refusal

from netlathe.archspace.blocks import ConvBlock, LinearHead, MBConv
from netlathe.archspace.forms.tflite import write_tflite
from netlathe.archspace.networks import network
from netlathe.archspace.profile_file import ProfileFile
from netlathe.archspace.spaces import SearchSpace
from netlathe.predictor import kernel_records
from netlathe.profiler.protocol import PHONE_PLAN

pytestmark = pytest.mark.skipif(loopback_unavailable() is not None, reason=str(loopback_unavailable()))


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    with LoopbackPhone(tmp_path_factory.mktemp("phone")) as phone, AdbDaemon(phone) as found:
        yield found


@pytest.fixture(scope="module", autouse=True)
def _little_effort():
    """A phone's own plan, with fewer runs and visits, and no round made again because this computer was busy."""
    plan = dataclasses.replace(PHONE_PLAN, runs=2, warmups=1, anchor_visits=1, redo_drift=None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("netlathe.profiler.phone.device.PHONE_PLAN", plan)
        yield


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    """A space of 8 distinct blocks."""
    path = tmp_path_factory.mktemp("space") / "small.json"
    choices = tuple(MBConv(8, 8, 8, 8, kernel=kernel, expand=expand) for kernel in (3, 5) for expand in (1, 3, 6))
    SearchSpace("small", ((ConvBlock(3, 8, 16, 16, 2),), choices, (LinearHead(8, 10, 8, 8),))).save(path)
    return path


def profile(daemon, space, output, *more):
    return (
        "profile", "--device", daemon.address, "--benchmark-binary", BENCHMARK_MODEL, "--space", space, "--networks", 0,
        "--rounds", 3, "--output", output, *more,
    )  # fmt: skip


def test_a_phone_is_listed_with_what_it_is(daemon):
    rows = {row["name"]: row for row in answer("devices", "--device", daemon.address)["devices"]}
    phone = rows[daemon.address]
    assert (phone["state"], phone["model"], phone["soc"], phone["android"]) == ("ready", "Pixel 8", "Tensor G3", "14")


def test_a_phone_that_is_not_there_is_listed_with_what_to_do():
    rows = {row["name"]: row for row in answer("devices", "--device", "tcp:127.0.0.1:1")["devices"]}
    assert rows["tcp:127.0.0.1:1"]["state"] != "ready"
    assert rows["tcp:127.0.0.1:1"]["hint"]


def test_a_phone_is_profiled_into_a_file_and_told_as_json(daemon, space, tmp_path):
    found = answer(*profile(daemon, space, tmp_path / "p.sqlite", "--cores", "big", "--op-profile"))
    assert {"records", "failed", "unsupported", "redone", "wall_s", "inference_s", "setup"} <= set(found)
    assert (found["records"], found["failed"], found["unsupported"]) == (8, 0, 0)
    assert 0 < found["inference_s"] < found["wall_s"]
    assert found["setup"]["device"] == "Google Pixel 8"
    assert found["setup"]["core_mask"]
    with ProfileFile(tmp_path / "p.sqlite") as file:
        rows = file.op_times(file.setups()[0])
        assert len({row["graph"] for row in rows}) == 8
        assert all(row["mean_ms"] >= 0 and row["node_type"] for row in rows)
        assert all(
            dict(r.details)["peak_memory_mb"] > 0 for r in file.records() if r.graph.key in {x["graph"] for x in rows}
        )
        kernels = kernel_records(file, file.setups()[0])
    assert kernels.unmatched == []
    assert {"add 8x8x8 -> 8x8x8", "fully_connected 8 -> 10"} < {record.name for record in kernels.records}
    fitted = answer(
        "fit", tmp_path / "p.sqlite", "--output", tmp_path / "m.json", "--kernels", "--residual", "none",
        "--splits", "configuration",
    )  # fmt: skip
    assert fitted["splits"]["configuration"]["n"] > 5


@pytest.fixture(scope="module")
def of_both_dtypes(daemon, space, tmp_path_factory):
    """A profile of a phone in float32 and in int8, and the answer of the command that added int8."""
    path = tmp_path_factory.mktemp("dtypes") / "p.sqlite"
    answer(*profile(daemon, space, path))
    return path, answer(*profile(daemon, space, path, "--dtype", "int8"))


def test_int8_and_float32_stand_side_by_side_in_one_file(of_both_dtypes):
    with ProfileFile(of_both_dtypes[0]) as file:
        assert sorted(setup.dtype for setup in file.setups()) == ["float32", "int8"]


@pytest.mark.slow
def test_kernels_of_a_phone_are_profiled_and_fitted_and_price_any_network(daemon, tmp_path):
    path, model = tmp_path / "k.sqlite", tmp_path / "k.json"
    found = answer(*profile(daemon, "kernels", path, "--budget", 60, "--networks", 2))
    assert len(found["chosen"]) == 60
    assert found["failed"] == 0
    answer("fit", path, "--output", model, "--residual", "none", "--splits", "configuration")
    file = tmp_path / "any.tflite"
    file.write_bytes(write_tflite(network("mobilenet_v2_0.35_96").graph()))
    priced = answer("predict", file, "--predictor", model)
    assert 0 < priced["low_ms"] < priced["latency_ms"] < priced["high_ms"]
    assert priced["known_macs_share"] == 1
    assert priced["setup"]["device"] == "Google Pixel 8"


def test_two_phones_are_profiled_side_by_side(daemon, space, tmp_path):
    other = {**PIXEL_8, "ro.serialno": "OTHER", "ro.product.model": "Pixel 9"}
    with LoopbackPhone(tmp_path / "other", properties=other) as phone, AdbDaemon(phone) as second:
        found = answer(*profile(daemon, space, tmp_path / "p.sqlite", "--device", second.address))
    assert found["records"] == 16
    assert [setup["device"] for setup in found["setup"]] == ["Google Pixel 8", "Google Pixel 9"]
    assert [one["records"] for one in found["devices"]] == [8, 8]


def test_two_phones_run_on_cores_of_their_own_and_unfitting_ones_are_refused_before_anything_is_measured(
    daemon, space, tmp_path
):
    path, other = tmp_path / "p.sqlite", {**PIXEL_8, "ro.serialno": "OTHER"}
    with LoopbackPhone(tmp_path / "other", properties=other) as phone, AdbDaemon(phone) as second:
        words = profile(daemon, space, path, "--device", second.address, "--cores", f"{daemon.address}=1")
        refused = refusal(*words, "--cores", f"{second.address}=mid")
        assert f"{second.address}: this phone has no mid cores" in refused
        with ProfileFile(path) as file:
            assert file.setups() == []
        found = answer(*words, "--cores", "2")
    assert [setup["core_mask"] for setup in found["setup"]] == ["1", "2"]


def test_two_phones_measure_again_what_each_has_unstable_kernels_included(daemon, space, tmp_path):
    path, other = tmp_path / "p.sqlite", {**PIXEL_8, "ro.serialno": "OTHER", "ro.product.model": "Pixel 9"}
    with LoopbackPhone(tmp_path / "other", properties=other) as phone, AdbDaemon(phone) as second:
        words = profile(daemon, space, path, "--device", second.address, "--op-profile")
        answer(*words)
        with ProfileFile(path) as file:
            keys = {record.graph.key for record in file.records()}
            times = {setup.key: file.op_times(setup) for setup in file.setups()}
        disturb(path, keys)
        promised = answer(*words, "--again", "unstable", "--dry-run")
        found = answer(*words, "--again", "unstable")
    assert [one["again"] for one in promised["devices"]] == [one["again"] for one in found["devices"]] == [13, 13]
    assert (found["again"], found["unfinished"], found["records"]) == (26, 0, 26)
    with ProfileFile(path) as file:
        assert all(file.op_times(setup) != times[setup.key] for setup in file.setups())


def test_when_one_of_two_phones_is_lost_the_other_finishes(daemon, space, tmp_path, monkeypatch):
    monkeypatch.setattr("netlathe.profiler.phone.link.RECONNECT_S", 0.2)
    other = {**PIXEL_8, "ro.serialno": "OTHER", "ro.product.model": "Pixel 9"}
    with LoopbackPhone(tmp_path / "other", properties=other) as phone, AdbDaemon(phone) as second:
        phone.fault("wrong_tool", when=range(3, 1000))  # once the setup is known
        message = refusal(*profile(daemon, space, tmp_path / "p.sqlite", "--device", second.address))
    assert second.address in message
    assert f"finished and kept: {daemon.address}" in message
    with ProfileFile(tmp_path / "p.sqlite") as file:
        kept = {setup.device: len(file.records(setup)) for setup in file.setups()}
    assert kept["Google Pixel 8"] == 13  # with the five anchors
    assert kept["Google Pixel 9"] == 0


def test_files_and_names_are_timed_on_a_phone_beside_a_profiles_anchors(daemon, space, tmp_path):
    answer(*profile(daemon, space, tmp_path / "p.sqlite", "--cores", "big"))
    block = MBConv(8, 8, 8, 8)
    (tmp_path / "a.tflite").write_bytes(write_tflite(ConvBlock(3, 8, 8, 8).graph()))
    found = answer(
        "time", tmp_path / "a.tflite", block.name, "--device", daemon.address, "--benchmark-binary", BENCHMARK_MODEL,
        "--cores", "big", "--profile", tmp_path / "p.sqlite", "--budget-s", 1,
    )  # fmt: skip
    assert [one["name"] for one in found["timed"]] == [str(tmp_path / "a.tflite"), block.name]
    assert all(one["rounds"] >= 3 and one["latency_ms"] > 0 for one in found["timed"])
    assert "Google Pixel 8" in found["setup"]
    with ProfileFile(tmp_path / "p.sqlite") as file:
        assert len(file.records(file.setups()[0])) == 13
    assert list(daemon.phone.path("/data/local/tmp").iterdir()) == []


def test_the_same_phone_twice_is_refused(daemon, space, tmp_path):
    message = refusal(*profile(daemon, space, tmp_path / "p.sqlite", "--device", daemon.address))
    assert "twice" in message


def test_a_budget_that_is_out_before_every_block_has_a_record_is_no_success(daemon, tmp_path):
    result = netlathe(*profile(daemon, "tiny", tmp_path / "p.sqlite", "--budget-s", 1, "--json"))
    found = json.loads(result.stdout.splitlines()[-1])
    assert result.exit_code == 1
    assert found["unfinished"] > 0
    assert any("continues" in warning for warning in found["warnings"])


def test_two_phones_get_a_choice_each_according_to_what_the_file_holds_of_them(daemon, space, tmp_path):
    first = answer(*profile(daemon, space, tmp_path / "p.sqlite", "--budget", 3))
    assert (first["blocks"], len(first["chosen"])) == (3, 3)
    other = {**PIXEL_8, "ro.serialno": "OTHER", "ro.product.model": "Pixel 9"}
    with LoopbackPhone(tmp_path / "other", properties=other) as phone, AdbDaemon(phone) as second:
        found = answer(*profile(daemon, space, tmp_path / "p.sqlite", "--budget", 3, "--device", second.address))
    old, new = found["devices"]
    assert (old["reused"], old["blocks"], new["reused"], new["blocks"]) == (3, 6, 0, 3)
    assert not set(old["chosen"]) & set(first["chosen"])
    assert new["chosen"] == first["chosen"]


def test_a_dry_run_on_a_phone_measures_nothing(daemon, space, tmp_path):
    found = answer(*profile(daemon, space, tmp_path / "p.sqlite", "--dry-run"))
    assert (found["dry_run"], found["new"]) == (True, 8)
    assert not (tmp_path / "p.sqlite").exists()


def test_to_fit_one_of_several_phones_it_is_chosen_by_its_key(of_both_dtypes, tmp_path):
    path, found = of_both_dtypes
    words = ("fit", path, "--output", tmp_path / "m.json", "--residual", "none")
    message = refusal(*words)
    assert "choose one of its setups with --setup" in message
    assert found["setup_key"][:8] in message
    fitted = answer(*words, "--setup", found["setup_key"][:8])
    assert fitted["setup"]["dtype"] == "int8"


def test_kernel_times_of_a_device_without_them_are_refused_before_anything_is_measured(space, tmp_path):
    arguments = ("--space", space, "--output", tmp_path / "p.sqlite", "--op-profile")
    assert "only a phone does" in refusal("profile", "--device", "local", *arguments)


def test_an_output_that_cannot_be_written_is_noticed_before_the_phone_is_touched(daemon, space):
    sent = daemon.bytes_in
    assert "/proc/x" in refusal(*profile(daemon, space, "/proc/x/p.sqlite"))
    assert daemon.bytes_in == sent


def test_a_phone_is_cleaned(daemon):
    found = answer("device", "clean", "--device", daemon.address)
    assert list(found["devices"]) == [daemon.address]
    assert list(daemon.phone.path("/data/local/tmp").iterdir()) == []


@pytest.fixture
def unplugged_at_the_end(daemon, monkeypatch):
    """The cable is pulled for good just before the phone is given back."""
    from netlathe.profiler.phone.device import PhoneDevice

    real = PhoneDevice.close

    def close(self):
        daemon.unplug()
        real(self)

    with monkeypatch.context() as patched:
        patched.setattr("netlathe.profiler.phone.device.RESTORE_S", 0.3)
        patched.setattr(PhoneDevice, "close", close)
        yield patched.undo
        daemon.plug()


def test_a_phone_that_is_not_given_back_costs_no_record_and_is_no_success(
    daemon, space, tmp_path, unplugged_at_the_end, monkeypatch
):
    result = netlathe(*profile(daemon, space, tmp_path / "p.sqlite", "--json"))
    found = json.loads(result.stdout.splitlines()[-1])
    assert result.exit_code == 1
    assert found["records"] == 8
    assert f"netlathe device clean --device {daemon.address}" in found["not_restored"][0]
    assert "was not given back as it was" in result.stderr
    with ProfileFile(tmp_path / "p.sqlite") as file:
        assert len(file.records()) == 13
    daemon.plug()
    answer("device", "clean", "--device", daemon.address)
    assert list(daemon.phone.path("/data/local/tmp").iterdir()) == []


def test_times_taken_on_a_phone_that_is_not_given_back_are_told_and_no_success(daemon, unplugged_at_the_end):
    result = netlathe(
        "time", "mbconv_k3_e6_s1_c16-16_32x32_relu6", "--device", daemon.address, "--benchmark-binary", BENCHMARK_MODEL,
        "--budget-s", 1, "--json",
    )  # fmt: skip
    found = json.loads(result.stdout.splitlines()[-1])
    assert result.exit_code == 1
    assert found["timed"][0]["latency_ms"] > 0
    assert f"netlathe device clean --device {daemon.address}" in found["not_restored"][0]
    daemon.plug()
    answer("device", "clean", "--device", daemon.address)


def test_a_dry_run_that_leaves_something_on_the_phone_is_no_success(daemon, space, tmp_path, unplugged_at_the_end):
    assert netlathe(*profile(daemon, space, tmp_path / "p.sqlite", "--dry-run")).exit_code == 1


def test_a_search_goes_on_though_its_phone_was_not_given_back_and_says_so_until_it_was(daemon, unplugged_at_the_end):
    from netlathe.cli.console import Terminal
    from netlathe.profiler.devices import DeviceOptions, open_device
    from netlathe.stages import results_first

    terminal = Terminal()
    options = DeviceOptions(benchmark_binary=BENCHMARK_MODEL)
    with results_first(daemon.address, terminal), open_device(daemon.address, options):
        pass
    assert list(terminal.undone) == [daemon.address]
    daemon.plug()
    unplugged_at_the_end()
    with results_first(daemon.address, terminal), open_device(daemon.address, options):
        pass
    assert terminal.undone == {}


def test_a_phone_that_cannot_be_cleaned_wholly_is_no_success(daemon, space, tmp_path, unplugged_at_the_end):
    netlathe(*profile(daemon, space, tmp_path / "p.sqlite"))
    daemon.plug()
    tool = daemon.phone.path("/system/bin/settings")
    content = tool.read_bytes()
    tool.write_bytes(b"#!/system/bin/sh\nexit 1\n")
    try:
        result = netlathe("device", "clean", "--device", daemon.address)
    finally:
        tool.write_bytes(content)
    assert result.exit_code == 1
    assert "is not clean" in result.stderr
    assert "stay_awake: could not be put back" in " ".join(result.stderr.split())
    answer("device", "clean", "--device", daemon.address)


def test_all_phones_are_cleaned_though_one_is_not_there(daemon, space, tmp_path, unplugged_at_the_end):
    netlathe(*profile(daemon, space, tmp_path / "p.sqlite"))
    daemon.plug()
    assert list(daemon.phone.path("/data/local/tmp").iterdir()) != []
    result = netlathe("device", "clean", "--device", "tcp:127.0.0.1:1", "--device", daemon.address, "--json")
    found = json.loads(result.stdout.splitlines()[-1])
    assert result.exit_code == 1
    assert list(found["devices"]) == [daemon.address]
    assert "tcp:127.0.0.1:1" in found["not_restored"][0]
    assert list(daemon.phone.path("/data/local/tmp").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--device", "tcp:127.0.0.1:1"), "127.0.0.1:1"),
        (("--device", "usb:NOSUCH"), "NOSUCH"),
        (("--device", "tcp:"), "tcp:HOST:PORT"),
        (("--device", "local", "--delegate", "gpu"), "for phones"),
    ],
)
def test_what_cannot_be_profiled_is_one_clear_error(space, tmp_path, arguments, words):
    message = refusal("profile", "--space", space, "--output", tmp_path / "p.sqlite", *arguments)
    assert words in message


def test_a_missing_or_wrong_binary_is_one_clear_error(daemon, space, tmp_path):
    page = tmp_path / "page.html"
    page.write_text("<!DOCTYPE html><html>404</html>")
    for binary in (tmp_path / "missing", page, tmp_path):
        message = refusal(
            "profile", "--device", daemon.address, "--benchmark-binary", binary, "--space", space,
            "--output", tmp_path / "p.sqlite",
        )  # fmt: skip
        assert str(binary) in message
    assert list(daemon.phone.path("/data/local/tmp").iterdir()) == []


def test_a_phone_behind_an_adb_server_is_found_and_profiled(daemon, space, tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "adb").mkdir()
    adb = Adb(home, tmp_path / "adb")
    serial = f"127.0.0.1:{daemon.port}"
    adb("start-server")
    try:
        adb("connect", serial)
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(adb.server.port))
        rows = {row["name"]: row for row in answer("devices")["devices"]}
        assert rows[f"server:{serial}"]["state"] == "ready"
        found = answer(
            "profile", "--device", f"server:{serial}", "--benchmark-binary", BENCHMARK_MODEL, "--space", space,
            "--networks", 0, "--rounds", 3, "--output", tmp_path / "p.sqlite",
        )  # fmt: skip
        assert found["records"] == 8
    finally:
        adb("kill-server")
        wait_until(lambda: not adb.listens())
