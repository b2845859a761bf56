"""What describe.sh says becomes a description, its cores become groups and masks."""

from __future__ import annotations

import pytest

from netlathe.profiler.errors import DeviceError
from netlathe.profiler.phone.description import PhoneDescription, core_list
from netlathe.profiler.phone.topology import core_groups, core_mask, core_summary

PIXEL_8 = (1704000,) * 4 + (2367000,) * 4 + (2914000,)
HEAD = "ro.product.cpu.abilist=arm64-v8a,armeabi-v7a\n"


def phone(khz: tuple[int | None, ...], **more: str) -> PhoneDescription:
    lines = [f"cpu{i}.cpuinfo_max_freq={one}" for i, one in enumerate(khz) if one]
    lines += [f"cpu{i}.scaling_governor=schedutil" for i, one in enumerate(khz) if one]
    lines += [f"cores={len(khz)}", f"online_cores=0-{len(khz) - 1}"]
    lines += [f"{key.replace('_related', '.related')}={value}" for key, value in more.items()]
    return PhoneDescription.parse(HEAD + "\n".join(lines))


def test_everything_that_a_phone_tells_is_there() -> None:
    text = f"""WARNING: linker: something
{HEAD}ro.product.manufacturer=Google
ro.product.model=Pixel 8
ro.soc.model=Tensor G3
ro.board.platform=zuma
ro.build.version.release=14
ro.build.version.sdk=34
ro.build.fingerprint=google/shiba/shiba:14/UD1A=x
ro.serialno=37281FDJH004
kernel=5.15.110-android14
boot_id=0b5e-11
uptime_s=812.31 6000.10
cpu0.cpuinfo_max_freq=1704000
cpu0.scaling_governor=sched_pixel
cores=1
allowed_cores=0
tools=tar timeout
data_free_kb=83697176
screen=off
"""
    found = PhoneDescription.parse(text)
    assert (found.manufacturer, found.model, found.soc) == ("Google", "Pixel 8", "Tensor G3")
    assert (found.release, found.sdk, found.fingerprint) == ("14", 34, "google/shiba/shiba:14/UD1A=x")
    assert (found.abis, found.serial, found.kernel) == (
        ("arm64-v8a", "armeabi-v7a"),
        "37281FDJH004",
        "5.15.110-android14",
    )
    assert (found.boot_id, found.uptime_s, found.data_free_kb) == ("0b5e-11", 812.31, 83697176)
    assert (found.tools, found.allowed_cores, found.screen_on) == ({"tar", "timeout"}, {0}, False)
    assert found.governors == ("sched_pixel",)


def test_what_a_phone_does_not_tell_is_empty() -> None:
    found = PhoneDescription.parse(f"{HEAD}cores=2\nro.board.platform=sdm845\nro.soc.model=UNKNOWN")
    assert (found.soc, found.model, found.sdk, found.uptime_s) == ("sdm845", "", None, None)
    assert (found.data_free_kb, found.screen_on, found.governors) == (None, None, ())
    assert all(core.is_online for core in found.cores)
    assert found.allowed_cores == {0, 1}


@pytest.mark.parametrize(
    ("lines", "abis"),
    [
        ("ro.product.cpu.abi=armeabi-v7a\nro.product.cpu.abi2=armeabi", ("armeabi-v7a", "armeabi")),
        ("ro.product.cpu.abilist=\nro.product.cpu.abi=x86", ("x86",)),
        (f"{HEAD}ro.product.cpu.abi=arm64-v8a", ("arm64-v8a", "armeabi-v7a")),
    ],
)
def test_before_android_5_two_properties_name_what_a_phone_runs(lines: str, abis: tuple[str, ...]) -> None:
    assert PhoneDescription.parse(f"{lines}\ncores=2").abis == abis


@pytest.mark.parametrize("text", ["", "hello", HEAD, HEAD + "cores=0", "cores=8", "sh: describe.sh: not found"])
def test_what_is_no_description_is_refused_and_shown(text: str) -> None:
    with pytest.raises(DeviceError, match="does not describe an Android phone") as caught:
        PhoneDescription.parse(text)
    assert repr(text) in str(caught.value)


def test_an_offline_core_is_known_by_its_siblings() -> None:
    found = phone((1704000, None, 2914000), cpu0_related_cpus="0 1", online_cores="0,2")
    assert [core.max_khz for core in found.cores] == [1704000, 1704000, 2914000]
    assert [core.is_online for core in found.cores] == [True, False, True]


@pytest.mark.parametrize(
    ("text", "cores"), [("0-3,7", {0, 1, 2, 3, 7}), ("0 1 2", {0, 1, 2}), ("5", {5}), ("", set()), ("none", set())]
)
def test_the_kernels_lists_of_cores_are_read(text: str, cores: set[int]) -> None:
    assert core_list(text) == cores


@pytest.mark.parametrize(
    ("khz", "big", "mid", "little", "summary"),
    [
        (PIXEL_8, "100", "f0", "f", "4x1.70 + 4x2.37 + 1x2.91 GHz"),
        ((1800000,) * 4 + (2420000,) * 3 + (2840000,), "80", "70", "f", "4x1.80 + 3x2.42 + 1x2.84 GHz"),
        ((1,) * 2 + (2,) * 2 + (3,) * 3 + (4,), "80", "7c", "3", None),
        ((2200000,) * 2 + (1800000,) * 6, "3", None, "fc", "6x1.80 + 2x2.20 GHz"),
        ((2000000,) * 4, "f", None, "f", "4x2.00 GHz"),
    ],
)
def test_groups_of_cores_become_masks(
    khz: tuple[int, ...], big: str, mid: str | None, little: str, summary: str | None
) -> None:
    found = phone(khz)
    assert (core_mask(found, "big"), core_mask(found, "little")) == (big, little)
    assert core_mask(found, "all") == f"{(1 << len(khz)) - 1:x}"
    if mid is None:
        with pytest.raises(DeviceError, match=r"no mid cores.*choose big, little or all"):
            core_mask(found, "mid")
    else:
        assert core_mask(found, "mid") == mid
    assert summary is None or core_summary(found) == summary


@pytest.mark.parametrize(("given", "mask"), [("F0", "f0"), ("0xf0", "f0"), ("1", "1"), ("0x100", "100"), ("00f", "f")])
def test_masks_are_taken_as_they_are(given: str, mask: str) -> None:
    assert core_mask(phone(PIXEL_8), given) == mask


@pytest.mark.parametrize("given", ["", "huge", "0", "0x", "-1", "f0 0f", "1,2", "Big"])
def test_other_texts_are_refused_and_shown(given: str) -> None:
    with pytest.raises(DeviceError, match="big, mid, little, all, or a hexadecimal mask") as caught:
        core_mask(phone(PIXEL_8), given)
    assert repr(given) in str(caught.value)


def test_cores_that_do_not_exist_are_named() -> None:
    with pytest.raises(DeviceError, match="600: the phone has no cores 9, 10, its 9 cores are 0 to 8"):
        core_mask(phone(PIXEL_8), "600")


def test_offline_cores_are_named() -> None:
    found = phone(PIXEL_8, online_cores="0-7")
    with pytest.raises(DeviceError, match="big: offline now: core 8; turn the battery saver off"):
        core_mask(found, "big")
    assert core_mask(found, "mid") == "f0"


def test_cores_that_a_cpuset_keeps_back_are_named() -> None:
    found = phone(PIXEL_8, allowed_cores="0-3")
    with pytest.raises(DeviceError, match="all: the system does not let a shell use cores 4, 5, 6, 7, 8"):
        core_mask(found, "all")
    assert core_mask(found, "little") == "f"


def test_without_frequencies_only_masks_serve() -> None:
    found = phone((None,) * 4)
    with pytest.raises(DeviceError, match="does not tell the frequency of cores 0, 1, 2, 3; give a hexadecimal mask"):
        core_mask(found, "big")
    assert core_mask(found, "c") == "c"
    assert core_mask(found, "all") == "f"
    assert core_summary(found) == "4 cores"


def test_some_cores_may_hide_their_frequency() -> None:
    found = phone((1700000, 1700000, None))
    assert core_groups(found) == {1700000: [0, 1], None: [2]}
    assert core_summary(found) == "2x1.70 + 1x? GHz"
