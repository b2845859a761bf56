"""A phone is a device like every other, and what only phones do."""

from __future__ import annotations

import threading

import pytest
from loopback.adbd import AdbDaemon
from loopback.phone import ANDROID_9, BENCHMARK_MODEL, LoopbackPhone, loopback_unavailable
from phones import ITEMS, KEYS, PLAN, check_profile, leftovers, opened, profile_phone

from netlathe.archspace.blocks import ConvBlock, MBConv
from netlathe.archspace.forms.tflite import write_tflite
from netlathe.archspace.graph import chain
from netlathe.archspace.precisions import mixed
from netlathe.archspace.profile_file import ProfileFile
from netlathe.archspace.records import Status
from netlathe.profiler.campaign import WorkItem, run_campaign
from netlathe.profiler.device import RoundEnd, Visit, Waiting
from netlathe.profiler.errors import DeviceError, MeasurementError, NotRestoredError, ProfilerError
from netlathe.profiler.phone import prepared
from netlathe.profiler.phone.delegation import PROBES
from netlathe.profiler.phone.holding import clean_phone
from netlathe.profiler.testing import SMALL, DeviceContract, one_round

pytestmark = pytest.mark.skipif(loopback_unavailable() is not None, reason=str(loopback_unavailable()))


@pytest.fixture(scope="module")
def phone(tmp_path_factory):
    with LoopbackPhone(tmp_path_factory.mktemp("phone")) as found, AdbDaemon(found) as daemon:
        found.daemon = daemon
        found.address = daemon.address
        yield found


@pytest.fixture(autouse=True)
def _healthy(phone):
    yield
    phone.clear_faults()
    phone.set_thermal(status=0, temperatures={"SKIN": 31.2})


@pytest.fixture
def device(phone):
    with opened(phone.address) as found:
        yield found


class TestAPhone(DeviceContract):
    def test_a_visit_gives_one_time_as_benchmark_model_sums_its_runs_up(self, device):
        device.load("small", SMALL.graph())
        assert [len(ms) for _, ms in one_round(device, [Visit("small", 5, 2), Visit("small", 1, 1)])] == [1, 1]


def test_a_campaign_measures_every_graph_and_leaves_nothing_on_the_phone(phone, tmp_path):
    summary = profile_phone(phone.address, tmp_path / "p.sqlite")
    assert [r.name for r in summary.records] == [item.name for item in ITEMS]
    check_profile(tmp_path / "p.sqlite")
    assert leftovers(phone) == []
    assert all(dict(r.details)["init_ms"] > 0 and dict(r.details)["memory_mb"] > 0 for r in summary.records)


def test_the_setup_says_all_that_the_times_depend_on(device):
    setup = device.setup
    details = dict(setup.details)
    assert (setup.device, setup.processor, setup.os) == ("Google Pixel 8", "Tensor G3", "Android 14")
    assert (setup.runtime, setup.delegate, setup.threads, setup.dtype) == ("tflite", "xnnpack", 1, "float32")
    assert set(details) == {
        "abi", "android_build", "benchmark_model", "benchmark_model_sha256", "cores", "delegated", "fixed_performance",
        "governor", "kernel", "unit",
    }  # fmt: skip
    assert details["delegated"] == "all"
    assert details["benchmark_model_sha256"].startswith(setup.runtime_version)
    assert all(details.values())


def test_the_phone_is_kept_steady_meanwhile_and_restored_afterwards(phone):
    before = phone.settings.get("stay_on_while_plugged_in")
    with opened(phone.address) as device:
        assert {s.step: s.state for s in device.steps}["fixed_performance"] == "held"
        assert phone.power["fixed_performance"] == "true"
        assert phone.settings.get("stay_on_while_plugged_in") != before
    assert phone.settings.get("stay_on_while_plugged_in") == before
    assert phone.power["fixed_performance"] == "false"
    assert leftovers(phone) == []


def test_a_battery_that_is_nearly_empty_or_saved_is_told_with_what_to_do(phone):
    said = []
    phone.set_battery(level=12)
    try:
        with opened(phone.address, report=said.append):
            pass
        phone.set_battery()
        phone.settings["low_power"] = "1"
        with opened(phone.address, report=said.append):
            pass
    finally:
        phone.set_battery()
        phone.settings.pop("low_power", None)
    assert [line.partition(": ")[2].partition(";")[0] for line in said] == [
        "battery: refused (at 12 %)", "battery: refused (battery saver on, 87 %)",
    ]  # fmt: skip
    assert all("charge it and turn the battery saver off" in line for line in said)


def test_cores_threads_and_delegate_stand_in_the_setup_and_in_the_command(phone):
    with opened(phone.address, cores="big", threads=1) as device:
        assert device.setup.core_mask == f"{1 << len(phone.cores_khz) - 1:x}"
        device.load("x", SMALL.graph())
        assert len(one_round(device, [Visit("x", 1, 0)])) == 1
    with opened(phone.address, xnnpack=False) as device:
        assert device.setup.delegate == "none"
        device.load("x", SMALL.graph())
        ((_, times),) = one_round(device, [Visit("x", 1, 0)])
        assert len(times) == 1


def test_int8_blocks_run_and_are_another_setup(phone, tmp_path):
    summary = profile_phone(phone.address, tmp_path / "p.sqlite", dtype="int8")
    assert summary.setup.dtype == "int8"
    assert len(summary.records) == len(ITEMS)


def test_a_network_of_several_precisions_is_a_float32_setups_and_takes_and_gives_float32(phone, tmp_path):
    graph = chain([("b00", ConvBlock(3, 8, 16, 16, 2).graph()), ("b01", MBConv(8, 8, 8, 8).graph())])
    precisions = {node.name: "int8" for node in graph.nodes if node.scope == "b01"}
    items = [*ITEMS[:1], WorkItem("mixed", "network", mixed(graph, precisions))]
    summary = profile_phone(phone.address, tmp_path / "p.sqlite", items)
    assert summary.setup.dtype == "float32"
    assert {record.name: record.status for record in summary.records}["mixed"] is Status.OK


def test_a_graph_that_the_delegate_does_not_take_whole_is_unsupported_with_the_reason(phone, tmp_path):
    phone.refuse_on_delegate("gpu", "DEPTHWISE_CONV_2D")
    block = MBConv(8, 8, 8, 8)
    items = [*ITEMS, type(ITEMS[0])(block.name, "block", block.graph())]
    try:
        summary = profile_phone(phone.address, tmp_path / "p.sqlite", items, delegate="gpu")
    finally:
        phone.refuse_on_delegate("gpu")
    assert [r.name for r in summary.unsupported] == [block.name]
    assert "delegate" in summary.unsupported[0].message.lower()
    assert len(summary.records) == len(ITEMS)
    assert summary.setup.delegate == "gpu"


def test_xnnpack_that_takes_nothing_is_no_xnnpack_setup(phone):
    phone.fault("no_xnnpack")
    said = []
    with opened(phone.address, report=said.append) as asked:
        assert "XNNPACK executes nothing with this benchmark_model" in said[0]
        assert (asked.setup.delegate, dict(asked.setup.details)["delegated"]) == ("none", "none")
        asked.load("x", SMALL.graph())
        assert len(one_round(asked, [Visit("x", 1, 0)])[0][1]) == 1
    phone.clear_faults()
    with opened(phone.address, xnnpack=False, report=said.append) as ruled_out:
        assert ruled_out.setup == asked.setup  # the same kernels
    assert len(said) == 1


def test_a_block_of_which_xnnpack_takes_nothing_does_not_enter_xnnpacks_setup(phone, tmp_path):
    phone.fault("no_xnnpack", key=ITEMS[0].graph.key)
    summary = profile_phone(phone.address, tmp_path / "p.sqlite")
    assert summary.setup.delegate == "xnnpack"
    assert [r.name for r in summary.unsupported] == [ITEMS[0].name]
    assert "XNNPACK executes nothing of this graph" in summary.unsupported[0].message
    assert len(summary.records) == len(ITEMS) - 1


def test_a_record_says_how_much_xnnpack_executes(phone, tmp_path):
    """LiteRT's XNNPACK has no hard swish of int8."""
    block = MBConv(8, 8, 8, 8, activation="hard_swish")
    items = [*ITEMS[:1], type(ITEMS[0])(block.name, "block", block.graph())]
    summary = profile_phone(phone.address, tmp_path / "p.sqlite", items, dtype="int8")
    whole, part = (dict(record.details) for record in summary.records)
    assert (summary.setup.delegate, dict(summary.setup.details)["delegated"]) == ("xnnpack", "all")
    assert (whole["delegated_share"], whole["delegate_kernels"]) == (1.0, 1.0)
    assert ("delegated_share" in part, part["delegate_kernels"]) == (False, 3.0)


def test_the_gpu_s_api_stands_in_the_setup(phone):
    with opened(phone.address, delegate="gpu") as opencl:
        assert dict(opencl.setup.details)["gpu_api"] == "OpenCL"
    phone.fault("no_opencl")
    said = []
    with opened(phone.address, delegate="gpu", report=said.append) as opengl:
        assert "through OpenGL here, not OpenCL" in said[0]
        assert dict(opengl.setup.details)["gpu_api"] == "OpenGL"
        assert (opengl.setup.delegate, opengl.setup == opencl.setup) == ("gpu", False)
        opengl.load("x", SMALL.graph())
        assert len(one_round(opengl, [Visit("x", 1, 0)])[0][1]) == 1
        phone.clear_faults()
        ((_, outcome),) = one_round(opengl, [Visit("x", 1, 0)])
    assert isinstance(outcome, MeasurementError)
    assert "through OpenCL, and this setup's are run through OpenGL" in str(outcome)


def test_a_block_that_falls_back_to_opengl_does_not_enter_opencl_s_setup(phone, tmp_path):
    phone.fault("no_opencl", key=ITEMS[0].graph.key)
    summary = profile_phone(phone.address, tmp_path / "p.sqlite", delegate="gpu")
    assert [(r.name, "OpenGL" in r.message) for r in summary.failed] == [(ITEMS[0].name, True)]
    assert len(summary.records) == len(ITEMS) - 1


def test_a_delegate_that_takes_nothing_ends_the_campaign_at_its_opening(phone):
    phone.refuse_on_delegate("gpu", "CONV_2D", "DEPTHWISE_CONV_2D", "ADD")
    try:
        with (
            pytest.raises(DeviceError, match=r"(?s)--delegate gpu.*Disallowed CPU fallback"),
            opened(phone.address, delegate="gpu"),
        ):
            pass
    finally:
        phone.refuse_on_delegate("gpu")
    assert leftovers(phone) == []


@pytest.mark.parametrize(("kind", "reason"), [("not_executable", "cannot run on this phone"), ("abort", "aborted")])
def test_a_tool_that_does_not_run_is_noticed_at_opening(phone, kind, reason):
    phone.fault(kind)
    with pytest.raises(DeviceError, match=reason), opened(phone.address):
        pass
    assert leftovers(phone) == []


def test_a_phone_where_nothing_may_be_executed_is_refused_with_what_to_do(tmp_path):
    with (
        LoopbackPhone(tmp_path / "phone", data_mb=20, data_options="mode=0771,noexec") as strict,
        AdbDaemon(strict) as daemon,
    ):
        with pytest.raises(DeviceError, match="mounted noexec or the phone's policy") as caught, opened(daemon.address):
            pass
        assert daemon.address in str(caught.value)
        assert "another kind of processor" not in str(caught.value)
        assert leftovers(strict) == []


ANDROID_4 = {
    **{key: value for key, value in ANDROID_9.items() if key != "ro.product.cpu.abilist"},
    "ro.build.version.release": "4.4.2",
    "ro.build.version.sdk": "19",
}


def test_an_android_that_is_too_old_for_the_tool_is_named_with_what_to_do(tmp_path):
    binary = tmp_path / "benchmark_model"
    binary.write_text(
        '#!/system/bin/sh\necho \'CANNOT LINK EXECUTABLE: cannot locate symbol "strtod_l" referenced by "'
        "/data/local/tmp/netlathe/benchmark_model\"...' >&2\nexit 1\n"
    )
    with LoopbackPhone(tmp_path / "phone", properties=ANDROID_4) as old, AdbDaemon(old) as daemon:
        with pytest.raises(DeviceError) as caught, opened(daemon.address, benchmark_binary=binary):
            pass
        for words in (
            daemon.address,
            "it is built for a newer Android",
            "Android 4.4.2 (API 19)",
            "--benchmark-binary",
        ):
            assert words in str(caught.value)
        old.fault("crash")
        with (
            pytest.raises(DeviceError, match=r"(?s)segmentation fault.*Android 4.4.2 \(API 19\)"),
            opened(daemon.address),
        ):
            pass
        old.clear_faults()
        with opened(daemon.address) as device:  # with a tool that runs there, it serves as any other
            assert device.setup.os == "Android 4.4.2"


def test_a_probe_that_is_killed_once_is_tried_again(phone, tmp_path):
    with LoopbackPhone(tmp_path / "phone") as fresh, AdbDaemon(fresh) as daemon:
        for block in PROBES:
            fresh.fault("killed", key=block.graph().key, when=1)
        with opened(daemon.address) as device:
            assert (device.setup.delegate, dict(device.setup.details)["delegated"]) == ("xnnpack", "all")


def test_kernel_times_are_kept_for_each_graph(phone):
    with opened(phone.address) as device:
        block = MBConv(8, 8, 8, 8)
        device.load("b", block.graph())
        ((key, result),) = device.profile_ops(["b"])
    assert key == "b"
    assert sum("CONV" in op.node_type.upper() for op in result.op_times) == 3
    assert all(op.mean_ms >= 0 for op in result.op_times)
    assert result.peak_memory_mb > 0


def test_a_second_netlathe_on_the_phone_is_refused_clearly(phone):
    with opened(phone.address):
        with pytest.raises(ProfilerError, match="another netlathe is using this phone"), opened(phone.address):
            pass
        with pytest.raises(ProfilerError, match="another netlathe"):
            clean_phone(phone.address, print)
    with opened(phone.address) as again:
        assert again.setup.device == "Google Pixel 8"


def test_another_computer_that_measures_on_the_phone_is_respected(phone, monkeypatch, tmp_path):
    with opened(phone.address):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # another computer knows nothing of this one's locks
        monkeypatch.setattr("platform.node", lambda: "elsewhere")
        with pytest.raises(DeviceError, match="is measuring on this phone"), opened(phone.address):
            pass


def test_a_hot_phone_is_waited_for_and_its_round_is_measured_again(phone, monkeypatch):
    monkeypatch.setattr("netlathe.profiler.phone.prepared.POLL_S", 0.05)
    with opened(phone.address) as device:
        device.load("hot", SMALL.graph())
        phone.fault("heat", key="hot", when=1, status=2, temperatures={"SKIN": 44.0})
        events = []
        for event in device.time_rounds([[Visit("hot", 1, 0)]] * 2):
            events.append(event)
            if isinstance(event, Waiting):
                phone.clear_faults()
                phone.set_thermal(status=0, temperatures={"SKIN": 31.0})
    ends = [event for event in events if isinstance(event, RoundEnd)]
    assert [end.redo for end in ends] == ["thermal status 2 (moderate)", ""]
    waits = [event for event in events if isinstance(event, Waiting)]
    assert "thermal status 2" in waits[0].reason
    assert waits[0].waited_s <= waits[0].limit_s == prepared.COOL_DOWN_S


def test_a_phone_that_was_plugged_in_hot_cools_down_before_its_first_round(phone, monkeypatch):
    monkeypatch.setattr("netlathe.profiler.phone.prepared.POLL_S", 0.05)
    monkeypatch.setattr(
        "netlathe.profiler.phone.prepared.COOL_DOWN_S", 0.0
    )  # only what does not get better has a limit
    last = len(phone.cores_khz) - 1
    phone.set_thermal(status=0, temperatures={"SKIN": 43.0})
    phone.cap_frequency(last, 1_000_000)
    waits = []
    try:
        with opened(phone.address) as device:
            device.load("warm", SMALL.graph())
            phone.fault("cap", key="warm", when=2, core=last, khz=1_000_000)
            events = device.time_rounds([[Visit("warm", 1, 0)]] * 2)
            for event in events:
                if isinstance(event, Waiting):
                    waits.append(event.reason)
                    assert event.limit_s is None
                    phone.set_thermal(status=0, temperatures={"SKIN": 43.0 - 3 * len(waits)})
                    phone.cap_frequency(last, None)
                elif isinstance(event, RoundEnd):
                    break
            assert event.redo == ""
            # The cap was the heat's: once it is gone, it makes a round count not.
            assert "1000 MHz" in next(event.redo for event in events if isinstance(event, RoundEnd))
    finally:
        phone.cap_frequency(last, None)
    assert waits[0] == "cooling: skin at 43.0 degC, needs to be below 35.0 degC or to come to rest"
    assert len(waits) == 3


def test_a_phone_that_was_plugged_in_cold_does_not_wait_once_it_is_warm(phone):
    phone.set_thermal(status=0, temperatures={"SKIN": 24.0})
    with opened(phone.address) as device:
        device.load("x", SMALL.graph())
        phone.set_thermal(status=0, temperatures={"SKIN": 31.5})
        events = list(device.time_rounds([[Visit("x", 1, 0)]]))
    assert not any(isinstance(event, Waiting) for event in events)


def test_a_phone_that_stays_warm_at_rest_is_measured_and_its_owner_is_told(phone, monkeypatch):
    monkeypatch.setattr("netlathe.profiler.phone.prepared.POLL_S", 0.05)
    monkeypatch.setattr("netlathe.profiler.phone.conditions.SETTLE_S", 0.3)
    phone.set_thermal(status=0, temperatures={"SKIN": 41.0})
    said = []
    with opened(phone.address, report=said.append) as device:
        device.load("x", SMALL.graph())
        events = list(device.time_rounds([[Visit("x", 1, 0)]]))
        again = list(device.time_rounds([[Visit("x", 1, 0)]]))
    assert isinstance(events[0], Waiting)
    assert [event.redo for event in (*events, *again) if isinstance(event, RoundEnd)] == ["", ""]
    assert not any(isinstance(event, Waiting) for event in again)
    assert sum("stays at 41.0 degC even at rest" in line for line in said) == 1


def test_a_phone_that_stays_hot_ends_the_campaign_with_what_to_do(phone, monkeypatch):
    monkeypatch.setattr("netlathe.profiler.phone.prepared.POLL_S", 0.05)
    monkeypatch.setattr("netlathe.profiler.phone.prepared.COOL_DOWN_S", 0.2)
    with opened(phone.address) as device:
        device.load("x", SMALL.graph())
        phone.set_thermal(status=3, temperatures={"SKIN": 46.0})
        with pytest.raises(DeviceError, match="cool place"):
            list(device.time_rounds([[Visit("x", 1, 0)]]))


def test_a_frequency_cap_that_appears_makes_the_round_count_not(phone, monkeypatch):
    monkeypatch.setattr("netlathe.profiler.phone.prepared.POLL_S", 0.05)
    with opened(phone.address) as device:
        device.load("capped", SMALL.graph())
        core = len(phone.cores_khz) - 1
        phone.fault("cap", key="capped", when=1, core=core, khz=1_000_000)
        ends = [e for e in device.time_rounds([[Visit("capped", 1, 0)]]) if isinstance(e, RoundEnd)]
        phone.cap_frequency(core, phone.cores_khz[core])
    assert "1000 MHz" in ends[0].redo


def test_cores_that_are_capped_from_the_start_or_not_used_are_no_reason_to_redo(phone):
    last = len(phone.cores_khz) - 1
    phone.cap_frequency(last, 2_000_000)
    try:
        with opened(phone.address) as device:
            device.load("x", SMALL.graph())
            ends = [e for e in device.time_rounds([[Visit("x", 1, 0)]] * 2) if isinstance(e, RoundEnd)]
        with opened(phone.address, cores="little") as device:
            phone.cap_frequency(last, 900_000)
            device.load("x", SMALL.graph())
            ends += [e for e in device.time_rounds([[Visit("x", 1, 0)]]) if isinstance(e, RoundEnd)]
    finally:
        phone.cap_frequency(last, None)
    assert [end.redo for end in ends] == ["", "", ""]


@pytest.mark.parametrize("tools", [(), ("sha256sum",), ("pkill", "pgrep", "timeout")])
def test_an_old_phone_without_some_tools_is_served_file_by_file(tmp_path, tools):
    with LoopbackPhone(tmp_path / "phone", properties=ANDROID_9) as old, AdbDaemon(old) as daemon:
        old.remove_tools("tar", "flock", "taskset", *tools)
        profile_phone(daemon.address, tmp_path / "p.sqlite")
        check_profile(tmp_path / "p.sqlite")
        assert leftovers(old) == []


def test_models_that_an_interrupted_campaign_left_are_not_sent_again(phone):
    with opened(phone.address) as device:
        for item in ITEMS:
            device.load(item.graph.key, item.graph)
        one_round(device, [Visit(ITEMS[0].graph.key, 1, 0)])
        sent = phone.daemon.bytes_in
        for item in ITEMS:
            device.load(item.graph.key, item.graph)
        one_round(device, [Visit(ITEMS[0].graph.key, 1, 0)])
        assert phone.daemon.bytes_in - sent < 3000


def test_a_given_file_runs_in_place_of_one_with_random_weights(phone):
    graph = SMALL.graph()
    content = write_tflite(graph, seed=7)
    with opened(phone.address) as device:
        device.models["x"] = content
        device.load("x", graph)
        one_round(device, [Visit("x", 1, 0)])
        assert phone.path("/data/local/tmp/netlathe/models/x.tflite").read_bytes() == content
        device.models.clear()
        device.load("x", graph)
        one_round(device, [Visit("x", 1, 0)])
        assert phone.path("/data/local/tmp/netlathe/models/x.tflite").read_bytes() != content


def test_too_little_storage_is_noticed_before_anything_is_sent(tmp_path):
    with LoopbackPhone(tmp_path / "phone", data_mb=2) as small, AdbDaemon(small) as daemon:
        with opened(daemon.address) as device:
            block = MBConv(256, 256, 4, 4, expand=6)
            device.load("x", block.graph())
            with pytest.raises(DeviceError, match="free some of its storage"):
                one_round(device, [Visit("x", 1, 0)])
        assert leftovers(small) == []


def test_clean_restores_what_a_killed_campaign_left(phone):
    before = phone.settings.get("stay_on_while_plugged_in")
    device_context = opened(phone.address)
    device = device_context.__enter__()
    device._held.close()  # as the system does for a killed process
    device.connection.close()
    assert leftovers(phone) == ["netlathe"]
    outcomes = clean_phone(phone.address, print)
    assert {o.step for o in outcomes if o.state == "restored"} >= {"stay_awake", "fixed_performance"}
    assert leftovers(phone) == []
    assert phone.settings.get("stay_on_while_plugged_in") == before


def test_a_setting_that_cannot_be_restored_is_told_and_stays_in_the_journal(phone):
    real = phone.path("/system/bin/settings")
    content, mode = real.read_bytes(), real.stat().st_mode
    with pytest.raises(NotRestoredError, match="stay_awake: could not be put back"), opened(phone.address):
        real.write_bytes(b"#!/system/bin/sh\nexit 1\n")
    real.write_bytes(content)
    real.chmod(mode)
    assert phone.path("/data/local/tmp/netlathe/journal").read_text()
    outcomes = clean_phone(phone.address, print)
    assert {o.state for o in outcomes} == {"restored"}
    assert leftovers(phone) == []


def test_any_name_of_user_and_computer_can_claim_the_phone(phone, monkeypatch):
    monkeypatch.setattr("platform.node", lambda: "DOM\\böb's laptop")
    with opened(phone.address):
        assert phone.path("/data/local/tmp/netlathe/owner").exists()


def test_a_program_that_is_killed_once_costs_no_record(phone, tmp_path):
    block = MBConv(8, 8, 12, 12)
    items = [*ITEMS, type(ITEMS[0])(block.name, "block", block.graph())]
    phone.fault("killed", key=block.graph().key, when=2)
    summary = profile_phone(phone.address, tmp_path / "p.sqlite", items)
    assert (len(summary.records), summary.failed) == (len(items), ())


def test_blocks_run_on_nnapi_where_it_takes_them_whole(phone, tmp_path):
    summary = profile_phone(phone.address, tmp_path / "p.sqlite", delegate="nnapi")
    assert len(summary.records) == len(ITEMS)
    assert summary.setup.delegate == "nnapi"


def test_two_phones_fill_one_profile_side_by_side(tmp_path):
    path = tmp_path / "p.sqlite"
    other = {**LoopbackPhone.__init__.__kwdefaults__["properties"], "ro.serialno": "B", "ro.product.model": "Pixel 9"}
    summaries, failures = {}, []
    with (
        LoopbackPhone(tmp_path / "a") as a, AdbDaemon(a) as first,
        LoopbackPhone(tmp_path / "b", properties=other) as b, AdbDaemon(b) as second,
    ):  # fmt: skip
        ProfileFile(path, create=True).close()

        def work(address):
            try:
                summaries[address] = profile_phone(address, path)
            except Exception as error:  # shown by the assertion below
                failures.append(error)

        threads = [threading.Thread(target=work, args=(d.address,)) for d in (first, second)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
    assert failures == []
    with ProfileFile(path) as profile:
        assert {setup.device for setup in profile.setups()} == {"Google Pixel 8", "Google Pixel 9"}
        for setup in profile.setups():
            assert {r.graph.key for r in profile.records(setup) if r.status is Status.OK} == KEYS


def test_a_crash_of_one_graph_is_recorded_as_its_failure_and_the_next_run_measures_it(phone, tmp_path):
    phone.fault("crash", key=ITEMS[0].graph.key)
    summary = profile_phone(phone.address, tmp_path / "p.sqlite")
    assert [r.name for r in summary.failed] == [ITEMS[0].name]
    assert "139" in summary.failed[0].message
    phone.clear_faults()
    profile_phone(phone.address, tmp_path / "p.sqlite")
    check_profile(tmp_path / "p.sqlite")


def test_a_wrong_tool_ends_the_campaign_at_once(phone, tmp_path):
    phone.fault("wrong_tool")
    with pytest.raises(DeviceError, match="benchmark_model"):
        profile_phone(phone.address, tmp_path / "p.sqlite")
    assert leftovers(phone) == []


def test_a_binary_for_another_processor_is_refused_before_it_is_sent(phone, tmp_path):
    wrong = tmp_path / "benchmark_model"
    wrong.write_bytes(b"\x7fELF\x01\x01\x01" + bytes(9) + b"\x02\x00\x28\x00" + bytes(64))  # 32-bit ARM
    with pytest.raises(DeviceError, match="arm"), opened(phone.address, benchmark_binary=wrong):
        pass
    assert leftovers(phone) == []


def test_a_binary_in_a_folder_with_blanks_and_quotes_is_found(phone, tmp_path):
    folder = tmp_path / 'it\'s a "folder" $HOME'
    folder.mkdir()
    binary = folder / "benchmark model"
    binary.write_bytes(BENCHMARK_MODEL.read_bytes())
    with opened(phone.address, benchmark_binary=binary) as device:
        device.load("x", SMALL.graph())
        assert len(one_round(device, [Visit("x", 1, 0)])) == 1


@pytest.mark.parametrize(
    ("options", "reason"), [({"cores": "huge"}, "huge"), ({"batch": 4}, "batch"), ({"cores": "fff0"}, "core")]
)
def test_options_that_a_phone_does_not_have_are_refused(phone, options, reason):
    with pytest.raises(DeviceError, match=reason), opened(phone.address, **options):
        pass
    assert leftovers(phone) == []


def test_plan_of_a_phone_is_its_own(device):
    from netlathe.profiler.devices import default_plan
    from netlathe.profiler.protocol import PHONE_PLAN

    assert default_plan(device) == PHONE_PLAN
    assert PLAN.round_s < PHONE_PLAN.round_s


def test_the_same_campaign_again_touches_no_model(phone, tmp_path):
    profile_phone(phone.address, tmp_path / "p.sqlite")
    with opened(phone.address) as device, ProfileFile(tmp_path / "p.sqlite") as profile:
        again = run_campaign(device, ITEMS, profile, PLAN)
    assert (again.reused, again.rounds) == (len(ITEMS), 0)
