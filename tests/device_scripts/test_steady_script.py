"""steady.sh changes only what it can put back, and puts it back after any interruption."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest
from toybox_phone import ToyboxPhone, hang_up

from netlathe.profiler.phone.steady import StepOutcome, parse_outcomes

ALL = ("wake", "stay_awake", "fixed_performance", "cores=3", "background")

POWER_FORMS = {
    "name": ("  mWakefulness=STATE\n", "Awake", "Asleep"),
    "samsung": ("  getWakefulnessLocked()=STATE\n", "Awake", "Asleep"),
    "number": ("  mWakefulness=STATE\n", "1", "0"),
    "number of a function": ("  getWakefulnessLocked()=STATE\n", "1", "3"),
    "display alone": ("Display Power: state=STATE\n", "ON", "OFF"),
    "name before display": ("  mWakefulness=STATE\nDisplay Power: state=ON\n", "Awake", "Dreaming"),
}
"""The lines of `dumpsys power`, and the words for a lit and a dark screen."""

NAMES = {"2": "Dreaming", "3": "Dozing"}


def apply(phone: ToyboxPhone, shell: str, *steps: str) -> dict[str, StepOutcome]:
    text = phone.text(shell, "steady.sh", "apply", phone.directory, *steps)
    return {one.step: one for one in parse_outcomes(text)}


def restore(phone: ToyboxPhone, shell: str) -> list[StepOutcome]:
    return parse_outcomes(phone.text(shell, "steady.sh", "restore", phone.directory))


def setting(phone: ToyboxPhone) -> str | None:
    path = phone.state / "setting.stay_on_while_plugged_in"
    return path.read_text().strip() if path.exists() else None


def wakefulness(phone: ToyboxPhone) -> str:
    return (phone.state / "wakefulness").read_text().strip()


def journal(phone: ToyboxPhone) -> list[str]:
    path = phone.directory / "journal"
    return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def sleeping(phone: ToyboxPhone) -> ToyboxPhone:
    """A phone as it lies on the desk: dark, eight cores, setting never touched."""
    (phone.state / "wakefulness").write_text("Asleep\n")
    (phone.proc / "self/status").write_text("Cpus_allowed:\t03\nCpus_allowed_list:\t0-1\n")
    for number in range(8):
        phone.core(number, cpuinfo_max_freq=1704000)
    return phone


def test_all_steps_hold_and_are_undone_in_reverse_order(sleeping: ToyboxPhone, shell: str) -> None:
    outcomes = apply(sleeping, shell, *ALL)
    assert {step: one.state for step, one in outcomes.items()} == dict.fromkeys(
        ("wake", "stay_awake", "fixed_performance", "cores", "background"), "held"
    )
    assert (wakefulness(sleeping), setting(sleeping)) == ("Awake", "15")
    assert journal(sleeping) == ["wake Asleep 11111111-aaaa", "stay_awake null", "fixed_performance false"]

    assert [(one.step, one.state) for one in restore(sleeping, shell)] == [
        ("fixed_performance", "restored"), ("stay_awake", "restored"), ("wake", "restored"),
    ]  # fmt: skip
    assert (wakefulness(sleeping), setting(sleeping)) == ("Asleep", None)
    assert (sleeping.state / "fixed_performance").read_text() == "false\n"
    assert not (sleeping.directory / "journal").exists()
    assert restore(sleeping, shell) == []


def test_a_setting_that_was_set_gets_its_value_back(sleeping: ToyboxPhone, shell: str) -> None:
    (sleeping.state / "setting.stay_on_while_plugged_in").write_text("3\n")
    apply(sleeping, shell, "stay_awake")
    assert setting(sleeping) == "15"
    restore(sleeping, shell)
    assert setting(sleeping) == "3"


def test_a_screen_that_was_on_stays_on(phone: ToyboxPhone, shell: str) -> None:
    assert apply(phone, shell, "wake")["wake"].state == "held"
    assert restore(phone, shell) == []
    assert wakefulness(phone) == "Awake"


@pytest.mark.parametrize("form", POWER_FORMS)
def test_a_dark_screen_is_lit_and_darkened_again_however_the_phone_tells_its_state(
    phone: ToyboxPhone, shell: str, form: str
) -> None:
    line, awake, dark = POWER_FORMS[form]
    (phone.state / "power_form").write_text(line)
    (phone.state / "power_words").write_text(f"{awake} {dark}\n")
    (phone.state / "wakefulness").write_text(f"{dark}\n")
    assert "screen=off\n" in phone.text(shell, "describe.sh")
    outcome = apply(phone, shell, "wake", "stay_awake")["wake"]
    assert (outcome.state, outcome.detail, wakefulness(phone)) == ("held", "Awake", awake)
    assert "screen=on\n" in phone.text(shell, "describe.sh")
    assert {one.step for one in restore(phone, shell)} == {"stay_awake", "wake"}
    assert wakefulness(phone) == dark


@pytest.mark.parametrize("word", ["2", "3", "Dreaming", "Dozing"])
def test_a_phone_that_dreams_or_dozes_is_woken(phone: ToyboxPhone, shell: str, word: str) -> None:
    (phone.state / "wakefulness").write_text(f"{word}\n")
    assert "screen=off\n" in phone.text(shell, "describe.sh")
    assert apply(phone, shell, "wake")["wake"].state == "held"
    assert journal(phone) == [f"wake {NAMES.get(word, word)} 11111111-aaaa"]


def test_a_phone_that_hides_its_screens_state_has_no_step_for_it(phone: ToyboxPhone, shell: str) -> None:
    (phone.state / "power_form").write_text("  mWakeLockSummary=0x0\n")
    assert "screen=" not in phone.text(shell, "describe.sh")
    assert apply(phone, shell, "wake")["wake"].state == "unavailable"


def test_after_a_reboot_settings_are_restored_and_the_screen_is_left_alone(sleeping: ToyboxPhone, shell: str) -> None:
    apply(sleeping, shell, *ALL)
    sleeping.set_uptime(20, "22222222-bbbb")
    assert {one.state for one in restore(sleeping, shell)} == {"restored"}
    assert (wakefulness(sleeping), setting(sleeping)) == ("Awake", None)


def test_applying_twice_keeps_the_first_old_values(sleeping: ToyboxPhone, shell: str) -> None:
    apply(sleeping, shell, *ALL)
    apply(sleeping, shell, *ALL)
    restore(sleeping, shell)
    assert (wakefulness(sleeping), setting(sleeping)) == ("Asleep", None)


@pytest.mark.parametrize("half", ["stay_aw", "wake Asle", "stay_awake 7"])
def test_a_journal_line_that_was_cut_off_is_of_a_step_that_was_not_applied(
    sleeping: ToyboxPhone, shell: str, half: str
) -> None:
    (sleeping.directory / "journal").write_text(half)
    assert restore(sleeping, shell) == []
    assert setting(sleeping) is None
    (sleeping.directory / "journal").write_text(half)
    apply(sleeping, shell, "stay_awake", "fixed_performance")
    assert journal(sleeping) == ["stay_awake null", "fixed_performance false"]


def test_refused_steps_say_why_and_leave_nothing_to_restore(sleeping: ToyboxPhone, shell: str) -> None:
    for tool in ("svc", "settings", "cmd", "input"):
        (sleeping.state / f"deny.{tool}").touch()
    outcomes = apply(sleeping, shell, *ALL)
    assert (outcomes["wake"].state, outcomes["wake"].detail) == ("refused", "Asleep")
    assert outcomes["stay_awake"].detail == "Permission denial: writing to settings"
    assert outcomes["fixed_performance"].detail == "Failed to set FIXED_PERFORMANCE mode"
    assert {outcomes[step].state for step in ("wake", "stay_awake", "fixed_performance")} == {"refused"}
    assert journal(sleeping) == []


def test_where_one_way_to_stay_awake_is_denied_the_other_serves(sleeping: ToyboxPhone, shell: str) -> None:
    (sleeping.state / "deny.svc").touch()
    assert apply(sleeping, shell, "stay_awake")["stay_awake"].state == "held"
    assert setting(sleeping) == "7"


def test_steps_that_a_phone_lacks_are_unavailable(sleeping: ToyboxPhone, shell: str) -> None:
    sleeping.set_property("ro.build.version.sdk", "29")
    for tool in ("settings", "input", "taskset"):
        (sleeping.tools / tool).unlink()
    (sleeping.proc / "loadavg").unlink()
    outcomes = apply(sleeping, shell, *ALL)
    assert {one.state for one in outcomes.values()} == {"unavailable"}
    assert outcomes["fixed_performance"].detail == "needs Android 11"
    assert journal(sleeping) == []


def test_a_value_that_cannot_be_put_back_stays_in_the_journal(sleeping: ToyboxPhone, shell: str) -> None:
    (sleeping.state / "setting.stay_on_while_plugged_in").write_text("1\n")
    apply(sleeping, shell, *ALL)
    (sleeping.state / "deny.settings").touch()
    states = {one.step: one.state for one in restore(sleeping, shell)}
    assert states == {"fixed_performance": "restored", "stay_awake": "failed", "wake": "restored"}
    assert journal(sleeping) == ["stay_awake 1"]
    (sleeping.state / "deny.settings").unlink()
    assert [(one.step, one.state) for one in restore(sleeping, shell)] == [("stay_awake", "restored")]
    assert setting(sleeping) == "1"


@pytest.mark.parametrize(
    ("mask", "detail"), [("xyz", "'xyz' is not a hexadecimal mask"), ("fff00000", "Invalid argument"), ("1", "only 03")]
)
def test_a_mask_that_does_not_hold_is_refused(sleeping: ToyboxPhone, shell: str, mask: str, detail: str) -> None:
    outcome = apply(sleeping, shell, f"cores={mask}")["cores"]
    assert outcome.state == "refused"
    assert detail in outcome.detail


@pytest.mark.parametrize(
    ("load", "state"), [("3.99", "held"), ("4.00", "refused"), ("0.08", "held"), ("12.5", "refused")]
)
def test_a_busy_phone_is_refused(sleeping: ToyboxPhone, shell: str, load: str, state: str) -> None:
    (sleeping.proc / "loadavg").write_text(f"{load} 1.00 1.00 2/900 1\n")
    outcome = apply(sleeping, shell, "background")["background"]
    assert (outcome.state, outcome.detail) == (state, f"load {load} on 8 cores")


def test_a_phone_that_compiles_apps_is_refused(sleeping: ToyboxPhone, shell: str) -> None:
    sleeping.tool("dex2oat64", "sleep 60")
    with subprocess.Popen(
        [sleeping.tools / "dex2oat64"], env=dict(sleeping.environment), start_new_session=True
    ) as job:
        try:
            outcome = apply(sleeping, shell, "background")["background"]
        finally:
            os.killpg(job.pid, signal.SIGKILL)
    assert (outcome.state, outcome.detail) == ("refused", "apps are being compiled (dex2oat)")


@pytest.mark.parametrize(
    ("level", "saver", "state", "detail"),
    [
        (87, None, "held", "at 87 %"),
        (20, "0", "held", "at 20 %"),
        (19, "0", "refused", "at 19 %"),
        (5, None, "refused", "at 5 %"),
        (87, "1", "refused", "battery saver on, 87 %"),
        (None, "1", "refused", "battery saver on"),
        (None, "0", "unavailable", ""),
    ],
)
def test_a_battery_that_is_low_or_saved_is_refused(
    phone: ToyboxPhone, shell: str, level: int | None, saver: str | None, state: str, detail: str
) -> None:
    if level is not None:
        text = f"Current Battery Service state:\n  present: true\n  level: {level}\n  scale: 100\n"
        (phone.state / "dumpsys.battery").write_text(text)
    if saver is not None:
        (phone.state / "setting.low_power").write_text(f"{saver}\n")
    outcome = apply(phone, shell, "battery")["battery"]
    assert (outcome.state, outcome.detail) == (state, detail)
    assert journal(phone) == []


@pytest.mark.parametrize(
    ("golden", "state"),
    [
        ("battery_usb.txt", "held"),
        ("battery_samsung.txt", "held"),
        ("battery_samsung_usb.txt", "held"),
        ("battery_android_7_tablet.txt", "refused"),
        ("battery_phone_2025.txt", "held"),
    ],
)
def test_real_batteries_are_charged_or_not(phone: ToyboxPhone, shell: str, golden: str, state: str) -> None:
    phone.dumps("battery", golden)
    assert apply(phone, shell, "battery")["battery"].state == state


def test_without_room_for_the_journal_nothing_is_changed(sleeping: ToyboxPhone, shell: str) -> None:
    (sleeping.directory / "journal").symlink_to(sleeping.root / "nowhere/journal")
    done = sleeping.run(shell, "steady.sh", "apply", sleeping.directory, "stay_awake")
    assert done.returncode == 74
    assert b"free some space" in done.stderr
    assert setting(sleeping) is None


def test_an_unknown_step_is_refused_before_any_other(sleeping: ToyboxPhone, shell: str) -> None:
    done = sleeping.run(shell, "steady.sh", "apply", sleeping.directory, "stay_awake", "faster")
    assert done.returncode == 64
    assert b"there is no step 'faster'" in done.stderr
    assert setting(sleeping) is None


@pytest.mark.parametrize("apart", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_hung_up_at_any_moment_the_phone_can_be_restored(sleeping: ToyboxPhone, shell: str, apart: int) -> None:
    for name in ("svc", "settings", "cmd", "input", "dumpsys"):  # slow enough that a hang-up finds them at work
        sleeping.tool(name, (sleeping.tools / name).read_text().partition("\n")[2] + "\nsleep 0.01")
    for moment in range(0, 24, apart):
        command = sleeping.argv(shell, "steady.sh", *(("apply", sleeping.directory, *ALL)))
        with subprocess.Popen(
            command, env=dict(sleeping.environment), stdout=subprocess.DEVNULL, start_new_session=True
        ) as job:
            time.sleep(0.012 * moment)
            hang_up(job)
        with subprocess.Popen(
            sleeping.argv(shell, "steady.sh", "restore", sleeping.directory),
            env=dict(sleeping.environment), stdout=subprocess.DEVNULL, start_new_session=True,
        ) as job:  # fmt: skip
            time.sleep(0.006 * moment)
            hang_up(job)
        restore(sleeping, shell)
        assert setting(sleeping) is None
        assert journal(sleeping) == []
        assert wakefulness(sleeping) == "Asleep"
