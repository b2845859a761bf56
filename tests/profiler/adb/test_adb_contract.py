"""What every connection to a phone must do, on the direct one and on the one through an adb server."""

import os
import random
import threading
from collections.abc import Callable, Iterator

import pytest
from loopback.adbd import AdbDaemon
from loopback.link import Link
from loopback.phone import LoopbackPhone
from loopback.trust import Trust

from netlathe.profiler.adb import AdbConnection, ShellExit, ShellResult, quote
from netlathe.profiler.adb.connection import PhoneStateError
from netlathe.profiler.errors import CommandTimeoutError, ConnectionLostError, DeviceError

FOLDER = "/data/local/tmp/contract"
Connect = Callable[..., AdbConnection]


@pytest.fixture
def link(connect: Connect, daemon: AdbDaemon) -> Iterator[AdbConnection]:
    connection = connect(daemon)
    yield connection
    connection.run(f"rm -rf {FOLDER}")


def wait_for_sleep(connection: AdbConnection, argument: str) -> None:
    """Until a `sleep` with this argument runs: a signal that meets a shell between fork and exec is lost."""
    assert connection.run(f"until pgrep -x -f 'sleep {argument}'; do sleep 0.05; done").code == 0


def gone(connection: AdbConnection, argument: str) -> bool:
    """Whether such a `sleep` ends within 10 s."""
    command = f"for i in $(seq 100); do pgrep -x -f 'sleep {argument}' || exit 0; sleep 0.1; done; exit 1"
    return connection.run(command).code == 0


class TestShell:
    def test_exit_status_and_both_outputs_come_apart(self, link: AdbConnection) -> None:
        assert link.run("echo out; echo err >&2; exit 3") == ShellResult("out\n", "err\n", 3)
        assert link.run("true") == ShellResult("", "", 0)
        assert link.run("kill -9 $$").code == 137
        assert link.run("no-such-program").code == 127
        assert link.run("echo 'unfinished").code == 1

    def test_a_megabyte_of_output_arrives_unchanged(self, link: AdbConnection) -> None:
        lines = [f"{number:07d} {'x' * 92}" for number in range(10_000)]
        link.run(f"mkdir -p {FOLDER}")
        link.push("".join(f"{line}\n" for line in lines).encode(), f"{FOLDER}/lines")
        assert link.run(f"cat {FOLDER}/lines").stdout.splitlines() == lines
        *streamed, exit_ = link.stream(f"cat {FOLDER}/lines", silence_s=30)
        assert streamed == lines
        assert exit_ == ShellExit(0, "")

    def test_text_is_utf8_and_bytes_that_are_not_are_replaced(self, link: AdbConnection) -> None:
        assert link.run("echo 'Größe 温度 🙂'").stdout == "Größe 温度 🙂\n"
        assert link.run(r"printf 'a\377b'").stdout == "a\ufffdb"

    def test_a_stream_gives_lines_as_they_come_and_then_the_exit(self, link: AdbConnection) -> None:
        fifo = f"{FOLDER}/gate"
        link.run(f"mkdir -p {FOLDER} && mkfifo {fifo}")
        command = f"echo one; read line < {fifo}; echo $line; echo; echo oops >&2; printf last; exit 7"
        stream = link.stream(command, silence_s=30)
        # the second line exists only if the first one arrived before the command went on
        assert next(stream) == "one"
        other = "two"
        link.run(f"echo {other} > {fifo}")
        assert list(stream) == ["two", "", "last", ShellExit(7, "oops\n")]

    def test_a_line_split_over_packets_is_one_line(self, link: AdbConnection) -> None:
        command = "printf 'half '; sleep 0.1; printf 'and '; sleep 0.1; echo half"
        assert list(link.stream(command, silence_s=30)) == ["half and half", ShellExit(0, "")]

    def test_a_silent_command_is_hung_up_and_the_connection_still_works(self, link: AdbConnection) -> None:
        stream = link.stream("echo started; sleep 987.1", silence_s=0.5)
        assert next(stream) == "started"
        with pytest.raises(CommandTimeoutError, match=r"sleep 987.*without an answer"):
            next(stream)
        assert link.run("echo alive").stdout == "alive\n"
        assert gone(link, "987.1")

    def test_silence_below_the_limit_is_fine(self, link: AdbConnection) -> None:
        command = "for i in 1 2 3 4; do sleep 0.3; echo $i; done"
        assert list(link.stream(command, silence_s=1.0))[-1] == ShellExit(0, "")

    def test_run_limits_the_whole_time_and_not_each_silence(self, link: AdbConnection) -> None:
        with pytest.raises(CommandTimeoutError, match="hung up"):
            link.run("while true; do echo again; sleep 0.987; done", timeout_s=1.5)
        assert link.run("echo alive").stdout == "alive\n"
        assert gone(link, "0.987")

    def test_a_stream_closed_early_ends_its_command(self, link: AdbConnection) -> None:
        stream = link.stream("echo first; echo second; sleep 987.2", silence_s=30)
        assert next(stream) == "first"
        wait_for_sleep(link, "987.2")
        stream.close()
        assert link.run("echo alive").stdout == "alive\n"
        assert gone(link, "987.2")

    def test_closing_a_talkative_stream_leaves_nothing_in_the_way(self, link: AdbConnection) -> None:
        for number in range(5):
            stream = link.stream("yes", silence_s=30)
            assert [next(stream) for _ in range(1000)] == ["y"] * 1000
            stream.close()
            assert link.run(f"echo {number}").stdout == f"{number}\n"
        assert link.run("pgrep -x yes").code in (0, 1)

    def test_commands_up_to_adbs_limit_work_and_longer_ones_say_what_to_do(self, link: AdbConnection) -> None:
        longest = 0xFFFF - len("shell,v2,raw:: ")
        assert link.run(": " + "x" * longest).code == 0
        with pytest.raises(DeviceError, match="push it as a file"):
            link.run(": " + "x" * (longest + 1))
        with pytest.raises(DeviceError, match="NUL"):
            link.run("echo a\0b")

    def test_a_phone_without_the_newer_shell_gives_exit_status_and_merged_outputs(self, link: AdbConnection) -> None:
        link._has_shell_v2 = False
        assert link.run("echo out; echo err >&2; exit 3") == ShellResult("out\nerr\n", "", 3)
        assert link.run("printf unfinished").stdout == "unfinished"
        assert link.run("echo 'no closing quote").code != 0
        assert list(link.stream("echo a; echo b; exit 4", silence_s=30)) == ["a", "b", ShellExit(4, "")]
        assert len(link.run("seq 100000").stdout) == 588_895


class TestFiles:
    def test_five_megabytes_there_and_back(self, link: AdbConnection, phone: LoopbackPhone) -> None:
        content = random.Random(0).randbytes(5 * 2**20 + 1)
        sent: list[int] = []
        link.push(content, f"{FOLDER}/binary", mode=0o755, on_bytes=sent.append)
        assert phone.path(f"{FOLDER}/binary").read_bytes() == content
        assert phone.path(f"{FOLDER}/binary").stat().st_mode & 0o700 == 0o700
        assert link.pull(f"{FOLDER}/binary") == content
        assert sum(sent) == len(content)
        assert max(sent) <= 2**20

    @pytest.mark.parametrize("size", [0, 1, 64 * 1024 - 1, 64 * 1024, 64 * 1024 + 1, 960 * 1024, 960 * 1024 + 1])
    def test_files_of_awkward_sizes(self, link: AdbConnection, size: int) -> None:
        content = os.urandom(size)
        link.push(content, f"{FOLDER}/file")
        assert link.pull(f"{FOLDER}/file") == content

    @pytest.mark.parametrize(
        "name",
        ["two words", "it's", 'say "hi"', "a,b,0644", "$HOME;true", "-rf", "größe 温度", "back\\slash", "new\nline"],
    )
    def test_odd_names(self, link: AdbConnection, name: str) -> None:
        path = f"{FOLDER}/{name}"
        link.push(b"content", path)
        assert link.pull(path) == b"content"
        assert link.run(f"cat {quote(path)}").stdout == "content"
        assert link.run(f"cd {FOLDER} && ls -1 | wc -l").stdout.strip() == str(1 + name.count("\n"))

    def test_a_missing_file_is_an_error_and_not_an_empty_one(self, link: AdbConnection) -> None:
        with pytest.raises(DeviceError, match=r"cannot read '/data/nowhere'.*No such file"):
            link.pull("/data/nowhere")
        with pytest.raises(DeviceError, match="cannot read"):
            link.pull("/data")
        assert link.run("echo alive").stdout == "alive\n"

    def test_a_file_that_cannot_be_written_says_why(self, link: AdbConnection) -> None:
        link.run(f"mkdir -p {FOLDER}")
        with pytest.raises(DeviceError, match=rf"cannot write '{FOLDER}': .*[Dd]irectory") as caught:
            link.push(b"x", FOLDER)
        assert not isinstance(caught.value, ConnectionLostError)
        assert link.run("echo alive").stdout == "alive\n"

    @pytest.mark.parametrize("over_bytes", [20_000, 20 * 2**20])
    def test_a_full_storage_is_named(self, link: AdbConnection, over_bytes: int) -> None:
        link.run(f"mkdir -p {FOLDER}")
        free_kb = int(link.run("df -k /data | tail -n 1").stdout.split()[3])
        filling = max(0, free_kb * 1024 - over_bytes // 2) >> 12
        assert link.run(f"dd if=/dev/zero of={FOLDER}/filling bs=4096 count={filling}").code == 0
        with pytest.raises(DeviceError, match=r"No space left on device.*storage is full") as caught:
            link.push(os.urandom(over_bytes), f"{FOLDER}/more")
        assert not isinstance(caught.value, ConnectionLostError)
        assert link.run("echo alive").stdout == "alive\n"


class TestBrokenLinks:
    def test_a_cable_pulled_while_a_command_runs(self, link: AdbConnection, daemon: AdbDaemon) -> None:
        stream = link.stream("echo started; sleep 987.3", silence_s=30)
        assert next(stream) == "started"
        wait_for_sleep(link, "987.3")
        daemon.unplug()
        with pytest.raises(ConnectionLostError):
            next(stream)
        with pytest.raises(ConnectionLostError):
            link.run("echo unreachable")
        daemon.plug()
        link.reconnect(30)
        assert link.run("echo back").stdout == "back\n"
        assert gone(link, "987.3")

    @pytest.mark.parametrize("after_bytes", [0, 10, 100_000])
    def test_a_cable_pulled_while_a_file_is_sent(
        self, link: AdbConnection, daemon: AdbDaemon, after_bytes: int
    ) -> None:
        daemon.link.cut_after(bytes_in=after_bytes)
        with pytest.raises(ConnectionLostError):
            link.push(os.urandom(2**20), f"{FOLDER}/cut")
        link.reconnect(30)
        link.push(b"whole", f"{FOLDER}/cut")
        assert link.pull(f"{FOLDER}/cut") == b"whole"

    @pytest.mark.parametrize("after_bytes", [0, 10, 100_000])
    def test_a_cable_pulled_while_a_file_is_fetched(
        self, link: AdbConnection, daemon: AdbDaemon, after_bytes: int
    ) -> None:
        content = os.urandom(2**20)
        link.push(content, f"{FOLDER}/cut")
        daemon.link.cut_after(bytes_out=after_bytes)
        with pytest.raises(ConnectionLostError):
            link.pull(f"{FOLDER}/cut")
        link.reconnect(30)
        assert link.pull(f"{FOLDER}/cut") == content

    def test_a_phone_that_stays_away(self, link: AdbConnection, daemon: AdbDaemon) -> None:
        daemon.unplug()
        with pytest.raises(ConnectionLostError, match=r"did not come back within 1 s"):
            link.reconnect(1.0)
        daemon.plug()
        link.reconnect(30)

    def test_a_reboot(self, connect: Connect, tmp_path_factory: pytest.TempPathFactory) -> None:
        with LoopbackPhone(tmp_path_factory.mktemp("rebooting")) as phone, AdbDaemon(phone) as daemon:
            connection = connect(daemon)
            connection.push(b"kept", "/data/local/tmp/kept")
            stream = connection.stream("echo started; sleep 100", silence_s=60)
            assert next(stream) == "started"
            daemon.reboot()
            with pytest.raises(ConnectionLostError):
                list(stream)
            connection.reconnect(30)
            assert connection.pull("/data/local/tmp/kept") == b"kept"
            connection.close()

    def test_reconnecting_hangs_up_what_runs(self, link: AdbConnection) -> None:
        stream = link.stream("echo started; sleep 987.4", silence_s=30)
        assert next(stream) == "started"
        wait_for_sleep(link, "987.4")
        link.reconnect(30)
        assert gone(link, "987.4")
        with pytest.raises(ConnectionLostError):
            next(stream)

    def test_packets_in_pieces(self, connect: Connect, phone: LoopbackPhone) -> None:
        with AdbDaemon(phone, link=Link(max_chunk_bytes=7)) as daemon:
            connection = connect(daemon)
            content = os.urandom(20_000)
            connection.push(content, f"{FOLDER}/pieces")
            assert connection.pull(f"{FOLDER}/pieces") == content
            assert connection.run("seq 1000").stdout.split() == [str(number) for number in range(1, 1001)]
            connection.close()

    def test_closing_twice_is_fine(self, connect: Connect, daemon: AdbDaemon) -> None:
        connection = connect(daemon)
        connection.close()
        connection.close()


class TestTrust:
    def test_a_user_who_does_not_allow_it(self, connect: Connect, phone: LoopbackPhone) -> None:
        told: list[str] = []
        with AdbDaemon(phone, auth=Trust(answer_s=None)) as daemon:
            with pytest.raises(PhoneStateError, match="tap Allow") as caught:
                connect(daemon, on_authorize=told.append, auth_timeout_s=0.5)
            assert caught.value.state == "unauthorized"
            assert [line.partition(":")[2].partition(" ")[0] for line in told] == [f"127.0.0.1:{daemon.port}:"]

    def test_a_user_who_takes_a_while(self, connect: Connect, phone: LoopbackPhone) -> None:
        told: list[str] = []
        trust = Trust(answer_s=None)
        with AdbDaemon(phone, auth=trust) as daemon:
            trust.answer_s = 1.5
            connection = connect(daemon, on_authorize=told.append, auth_timeout_s=30)
            assert connection.run("echo allowed").stdout == "allowed\n"
            connection.close()
            again = connect(daemon, on_authorize=told.append)
            assert again.run("echo known").stdout == "known\n"
            again.close()
        assert trust.dialogs == 1
        assert len(told) <= 1


class TestThreads:
    def test_two_threads_with_a_connection_each(self, connect: Connect, daemon: AdbDaemon) -> None:
        connections = [connect(daemon), connect(daemon)]
        answers: dict[int, list[str]] = {0: [], 1: []}

        def work(number: int) -> None:
            for turn in range(20):
                content = f"{number} {turn} ".encode() * 1000
                connections[number].push(content, f"{FOLDER}/thread{number}")
                assert connections[number].pull(f"{FOLDER}/thread{number}") == content
                answers[number].append(connections[number].run(f"echo {number} {turn}").stdout.strip())

        threads = [threading.Thread(target=work, args=[number]) for number in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == {number: [f"{number} {turn}" for turn in range(20)] for number in (0, 1)}
