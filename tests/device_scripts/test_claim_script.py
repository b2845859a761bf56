"""claim.sh gives a phone to one computer at a time."""

from __future__ import annotations

import subprocess

from toybox_phone import ToyboxPhone


def claim(phone: ToyboxPhone, shell: str, host: str, lease_s: object = 60) -> tuple[int, str]:
    done = phone.run(shell, "claim.sh", phone.directory, host, lease_s)
    return done.returncode, done.stdout.decode()


def test_a_held_phone_is_refused_and_its_holder_named(phone: ToyboxPhone, shell: str) -> None:
    assert claim(phone, shell, "ann@desk") == (0, "")
    assert claim(phone, shell, "bob@lab") == (75, "ann@desk\n")
    assert claim(phone, shell, "ann@desk") == (0, "")


def test_a_claim_lapses_after_its_lease_and_with_a_reboot(phone: ToyboxPhone, shell: str) -> None:
    claim(phone, shell, "ann@desk", 60)
    phone.set_uptime(1059)
    assert claim(phone, shell, "bob@lab")[0] == 75
    phone.set_uptime(1060.25)
    assert claim(phone, shell, "bob@lab")[0] == 0
    phone.set_uptime(1061, "22222222-bbbb")
    assert claim(phone, shell, "ann@desk")[0] == 0


def test_the_holders_lease_counts_not_the_askers(phone: ToyboxPhone, shell: str) -> None:
    claim(phone, shell, "ann@desk", 600)
    phone.set_uptime(1500)
    assert claim(phone, shell, "bob@lab", 10)[0] == 75


def test_a_torn_claim_is_no_claim(phone: ToyboxPhone, shell: str) -> None:
    (phone.directory / "owner").write_text("1000.2")
    assert claim(phone, shell, "bob@lab") == (0, "")


def test_of_many_that_claim_at_once_one_wins(phone: ToyboxPhone, shell: str) -> None:
    # Slow enough that all have read the owner before the first one writes it, were there no lock.
    phone.tool("mv", f'{phone.tools / "sleep"} 0.3\nexec {(phone.tools / "mv").readlink()} mv "$@"')
    running = [
        subprocess.Popen(phone.argv(shell, "claim.sh", phone.directory, f"host{i}", 60), env=dict(phone.environment),
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for i in range(6)
    ]  # fmt: skip
    codes = []
    for process in running:
        process.communicate(timeout=60)
        codes.append(process.returncode)
    assert sorted(codes) == [0, 75, 75, 75, 75, 75]


def test_a_folder_that_cannot_be_written_is_no_claim(phone: ToyboxPhone, shell: str) -> None:
    (phone.root / "file").write_text("")
    done = phone.run(shell, "claim.sh", phone.root / "file" / "dir", "ann@desk", 60)
    assert done.returncode == 74
    assert b"cannot be made" in done.stderr


def test_nonsense_is_refused(phone: ToyboxPhone, shell: str) -> None:
    for arguments in (("relative", "ann", 60), (phone.directory, "two words", 60), (phone.directory, "ann", "soon")):
        assert phone.run(shell, "claim.sh", *arguments).returncode == 64
