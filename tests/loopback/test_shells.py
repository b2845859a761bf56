"""Shell services, over a hand-written client."""

import signal
import struct
import subprocess

import pytest

from .adbd import AdbDaemon
from .phone import LoopbackPhone
from .raw_client import RawClient, packets
from .watch import eventually, runs


def test_stdout_stderr_and_exit_code_come_apart(client: RawClient) -> None:
    data = packets(client.run("shell,v2,raw:echo out; sleep 0.1; echo err >&2; exit 7"))
    assert data == [(1, b"out\n"), (2, b"err\n"), (3, b"\x07")]


@pytest.mark.parametrize(
    "service", ["shell,v2,TERM=xterm,raw:", "shell,v2,raw,TERM=xterm:", "shell,v2,TERM=xterm,new:"]
)
def test_arguments_may_come_in_any_order_and_unknown_ones_are_ignored(client: RawClient, service: str) -> None:
    assert packets(client.run(service + "echo $TERM; test -t 0")) == [(1, b"xterm\n"), (3, b"\x01")]


def test_a_command_killed_by_a_signal_reports_it_as_a_shell_does(client: RawClient) -> None:
    assert packets(client.run("shell,v2,raw:kill -9 $$")) == [(3, bytes([128 + 9]))]


def test_stdin_ends_where_the_client_closes_it(client: RawClient) -> None:
    remote_id = client.open("shell,v2,raw:cat; echo end")
    client.write(struct.pack("<BI", 0, 5) + b"hello", remote_id)
    client.write(struct.pack("<BI", 4, 0), remote_id)
    assert packets(client.read_all(remote_id)) == [(1, b"helloend\n"), (3, b"\x00")]


def test_without_packets_a_terminal_passes_every_byte_unchanged(client: RawClient, phone: LoopbackPhone) -> None:
    content = bytes(range(256)) * 500
    phone.path("/data/local/tmp/bytes").write_bytes(content)
    assert client.run("exec:cat /data/local/tmp/bytes") == content
    assert client.run("shell:test -t 1 && echo out; echo err >&2") == b"out\nerr\n"


def test_an_interactive_shell_has_a_terminal_that_echoes(client: RawClient) -> None:
    remote_id = client.open("shell,v2,pty:")
    client.write(struct.pack("<BI", 5, 10) + b"40x100,0x0", remote_id)
    line = b"test -t 0 && echo $((6*7)); exit 3\n"
    client.write(struct.pack("<BI", 0, len(line)) + line, remote_id)
    *output, end = packets(client.read_all(remote_id))
    text = b"".join(content for _, content in output)
    assert b"echo $((6*7))" in text
    assert b"42\r\n" in text
    assert end == (3, b"\x03")


@pytest.mark.parametrize("service", ["shell,v2,raw", "shell", "exec"])
def test_a_command_is_hung_up_when_its_client_leaves(daemon: AdbDaemon, phone: LoopbackPhone, service: str) -> None:
    with RawClient(daemon.port) as client:
        client.greet()
        client.open(f"{service}:sleep 4711; echo never")
        assert eventually(lambda: runs(phone, "sleep 4711"))
    assert eventually(lambda: not runs(phone, "sleep 4711"))


def test_a_command_is_hung_up_by_a_daemon_that_ignores_hang_ups_itself(daemon: AdbDaemon, phone: LoopbackPhone) -> None:
    # As under nohup.
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with RawClient(daemon.port) as client:
            client.greet()
            client.open("shell,v2,raw:sleep 4716; true")
            assert eventually(lambda: runs(phone, "sleep 4716"))
        assert eventually(lambda: not runs(phone, "sleep 4716"))
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_closed_stream_hangs_its_command_up_and_no_other(client: RawClient, phone: LoopbackPhone) -> None:
    first = client.open("shell,v2,raw:sleep 4712; true", 1)
    client.open("shell,v2,raw:sleep 4713; true", 2)
    assert eventually(lambda: runs(phone, "sleep 4712") and runs(phone, "sleep 4713"))
    client.send(b"CLSE", 1, first)
    assert client.receive()[:3] == (b"CLSE", first, 1)
    assert eventually(lambda: not runs(phone, "sleep 4712"))
    assert runs(phone, "sleep 4713")


@pytest.mark.parametrize("service", ["shell,v2,raw", "shell"])
def test_children_under_setsid_nohup_and_timeout_outlive_a_hang_up(
    daemon: AdbDaemon, phone: LoopbackPhone, service: str
) -> None:
    children = ("setsid", "nohup", "timeout 1000")
    ready = [phone.path(f"/data/local/tmp/ready{number}") for number in range(3)]
    for path in ready:
        path.unlink(missing_ok=True)
    script = "".join(
        f"{child} sh -c 'echo >/data/local/tmp/ready{number}; sleep 500{number}; true' </dev/null >/dev/null 2>&1 & "
        for number, child in enumerate(children)
    )
    with RawClient(daemon.port) as client:
        client.greet()
        client.open(f"{service}:{script} sleep 5004; true")
        assert eventually(lambda: runs(phone, "sleep 5004") and all(path.exists() for path in ready))
    daemon.cut()
    assert eventually(lambda: not runs(phone, "sleep 5004"))
    assert eventually(lambda: all(runs(phone, f"sleep 500{number}") for number in range(3)))
    subprocess.run(phone.shell_argv("pkill -f '[s]leep 500'"), env=phone.environment, check=True)


def test_a_background_job_that_holds_the_output_keeps_the_stream_open(client: RawClient) -> None:
    remote_id = client.open("shell,v2,raw:exec 3<&0; (read line <&3; echo late $line) & exit 5")
    client.write(struct.pack("<BI", 0, 3) + b"ok\n", remote_id)
    assert packets(client.read_all(remote_id)) == [(1, b"late ok\n"), (3, b"\x05")]
