"""netlathe's own directory on a phone: scripts, models, results. Nothing is written anywhere else."""

from __future__ import annotations

import getpass
import hashlib
import io
import os
import platform
import re
import shlex
import tarfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from netlathe.archspace.resources import device_script_path
from netlathe.profiler.adb import AdbConnection, ShellResult
from netlathe.profiler.errors import ClaimedError, DeviceError
from netlathe.profiler.phone.measure_protocol import log_lines

DIRECTORY = "/data/local/tmp/netlathe"  # the shell may execute files there, unlike on /sdcard
SCRIPTS = ("describe.sh", "conditions.sh", "claim.sh", "unpack.sh", "steady.sh", "measure.sh")
CLAIM = "scripts/claim.sh"
LEASE_S = 300
"""Time for which another computer's claim on the phone stands after its last sign of life: longer than a computer takes
to notice that a phone is silent, and then waits for it to come back."""

TAR_BYTES = 32 * 2**20
"""Size of the archives in which models go over: one costs as little as a single file, and a broken one little time."""

PUSH_TIMEOUT_S = 300.0
MOST_PATHS = 200
"""Number of paths on one command line, which a phone limits to 64 kB."""


class Workspace:
    """The directory, as seen through a connection. All methods raise DeviceError."""

    def __init__(self, connection: AdbConnection, directory: str = DIRECTORY) -> None:
        self.connection, self.directory = connection, directory
        self.models: dict[str, str] = {}  # sha256 by graph key of what is there
        self.is_used = False
        """Whether this computer may have left something in the directory, or changed the phone."""
        self._host = _this_host()

    def path(self, name: str) -> str:
        return f"{self.directory}/{name}"

    def command(self, script: str, *arguments: str) -> str:
        """The command line that runs one of the scripts."""
        return shlex.join(["sh", self.path(f"scripts/{script}"), *arguments])

    def run(self, command: str, what: str, *, timeout_s: float = 60.0) -> ShellResult:
        """Raises DeviceError, saying what failed and why, unless the command's exit code is 0."""
        result = self.connection.run(command, timeout_s=timeout_s)
        if result.code != 0:
            reason = (result.stderr or result.stdout).strip() or "it said nothing"
            hint = "; free some of the phone's storage" if "No space left" in reason else ""
            raise DeviceError(f"{self.connection.address}: cannot {what} (exit code {result.code}: {reason}){hint}")
        return result

    def exists(self) -> bool:
        """Whether the directory is there: another computer may have cleaned the phone meanwhile."""
        return self.connection.run(f"[ -e {shlex.quote(self.directory)} ]", timeout_s=30).code == 0

    def open(self) -> None:
        """Claims the phone, ends what an earlier session left running there, and puts the scripts into place.

        Raises ClaimedError, and touches nothing, while another computer measures there.
        """
        was_used, self.is_used = self.is_used, True
        folders = shlex.join(self.path(name) for name in ("scripts", "models", "results"))
        self.run(f"mkdir -p {folders}", f"make {self.directory}")
        scripts = {f"scripts/{name}": device_script_path(name).read_bytes() for name in SCRIPTS}
        there = self.sha256(scripts)
        missing = {name for name, script in scripts.items() if there.get(name) != hashlib.sha256(script).hexdigest()}
        try:
            if CLAIM in missing:  # alone: the others may be in use by another computer, which may be here as well
                self.put(scripts[CLAIM], CLAIM, part=f"{CLAIM}.{self._host}.part")
            self.claim()
        except ClaimedError:
            self.is_used = was_used
            raise
        # A session whose link hangs half-open waits for its reader, and keeps the next one out.
        self._stop("scripts/[m]easure.sh")
        for name in missing - {CLAIM}:
            self.put(scripts[name], name)

    def _stop(self, pattern: str) -> None:
        """Ends programs of this directory; the brackets in the pattern keep it from being its own match."""
        self.connection.run(f"pkill -KILL -f {shlex.quote(self.path(pattern))} 2>/dev/null", timeout_s=30)

    def claim(self) -> None:
        """Claims the phone for this computer, or renews the claim; raises ClaimedError while another one does."""
        result = self.connection.run(self.command("claim.sh", self.directory, self._host, str(LEASE_S)), timeout_s=30)
        if result.code == 75:
            raise ClaimedError(
                f"{self.connection.address}: {result.stdout.strip()} is measuring on this phone; wait until it has "
                f"finished (a claim lapses {LEASE_S} s after its last sign of life)"
            )
        if result.code != 0:
            raise DeviceError(f"{self.connection.address}: cannot claim the phone: {result.stderr.strip()}")

    def put(self, content: bytes, name: str, mode: int = 0o644, *, part: str = "") -> None:
        """Writes a file, complete or not at all: a push that is cut off leaves only `part`, NAME.part by default."""
        source, target = self.path(part or f"{name}.part"), self.path(name)
        self.connection.push(content, source, mode=mode)
        self.run(f"mv {shlex.quote(source)} {shlex.quote(target)}", f"write {target}")

    def sha256(self, names: Iterable[str]) -> dict[str, str]:
        """Digests of those of these files that are there, by name."""
        return self._about("sha256sum", names)

    def _about(self, tool: str, names: Iterable[str]) -> dict[str, str]:
        """Answers of the tool to each of these files, 'ANSWER PATH' a line, by name."""
        paths = {self.path(name): name for name in names}
        found: dict[str, str] = {}
        for part in _parts(list(paths)):
            result = self.connection.run(f"{tool} {shlex.join(part)} 2>/dev/null", timeout_s=120)
            rows = (line.split(maxsplit=1) for line in result.stdout.splitlines())
            found |= {paths[row[1].strip()]: row[0] for row in rows if len(row) == 2 and row[1].strip() in paths}
        return found

    def put_program(self, content: bytes, name: str) -> None:
        """Writes an executable, unless it is there already."""
        if self.sha256([name]).get(name) != hashlib.sha256(content).hexdigest():
            self.put(content, name, mode=0o755)
        self.run(f"chmod 755 {shlex.quote(self.path(name))}", f"make {self.path(name)} executable")

    def put_libraries(self, libraries: Mapping[str, bytes], folder: str) -> None:
        """Shared libraries that the program loads, by name."""
        self.run(f"mkdir -p {shlex.quote(self.path(folder))}", f"make {self.path(folder)}")
        for name, content in libraries.items():
            self.claim()
            self.put_program(content, f"{folder}/{name}")

    def find_models(self) -> None:
        """Learns which models an interrupted campaign left here."""
        listing = self.connection.run(f"ls {shlex.quote(self.path('models'))} 2>/dev/null", timeout_s=30)
        names = [f"models/{name}" for name in listing.stdout.split() if name.endswith(".tflite")]
        self.models = {name[len("models/") : -len(".tflite")]: sha for name, sha in self.sha256(names).items()}

    def put_models(self, models: Mapping[str, bytes], tools: Collection[str], free_kb: int | None = None) -> None:
        """Writes those models, .tflite content by graph key, that are not there yet, and checks what arrived.

        `tools` are the phone's; `free_kb` of its storage must suffice.
        """
        missing = {
            key: content
            for key, content in models.items()
            if self.models.get(key) != hashlib.sha256(content).hexdigest()
        }
        needed_kb = sum(map(len, missing.values())) / 1024
        if free_kb is not None and needed_kb > free_kb:
            raise DeviceError(
                f"{self.connection.address}: the blocks need {needed_kb / 1024:.0f} MB on the phone and "
                f"{free_kb / 1024:.0f} MB are free; free some of its storage"
            )
        for batch in _batches(missing):
            self.claim()  # over a slow link, the models take longer than a claim lasts
            if {"tar", "sha256sum"} <= set(tools):
                self._put_archive(batch)
            else:
                self._put_each(batch, "sha256sum" in tools)
            self.models |= {key: hashlib.sha256(content).hexdigest() for key, content in batch.items()}

    def _put_archive(self, models: Mapping[str, bytes]) -> None:
        archive = _tar(models)
        target = self.path("models.tar")
        self.connection.push(archive, target)
        digest = hashlib.sha256(archive).hexdigest()
        command = self.command("unpack.sh", self.directory, target, digest)
        self.run(command, "unpack models", timeout_s=PUSH_TIMEOUT_S)

    def _put_each(self, models: Mapping[str, bytes], has_sha256: bool) -> None:
        """Without checksums on the phone, the size must do: it shows what broke off."""
        for key, content in models.items():
            self.connection.push(content, self.path(f"models/{key}.tflite.part"))
        found = self._about("sha256sum" if has_sha256 else "wc -c", (f"models/{key}.tflite.part" for key in models))
        for key, content in models.items():
            expected = hashlib.sha256(content).hexdigest() if has_sha256 else str(len(content))
            if found.get(f"models/{key}.tflite.part") != expected:
                raise DeviceError(f"{self.connection.address}: model {key} arrived damaged; run the same command again")
        for part in _parts([shlex.quote(self.path(f"models/{key}.tflite")) for key in models]):
            self.run(" && ".join(f"mv {path}.part {path}" for path in part), "put the models into place")

    def remove_models(self, keys: Iterable[str]) -> None:
        """Removes those of these models that are there."""
        gone = [key for key in keys if key in self.models]
        for part in _parts(gone):
            paths = shlex.join(self.path(f"models/{key}.tflite") for key in part)
            self.run(f"rm -f {paths}", "remove finished models")
            for key in part:
                del self.models[key]

    def logs(self) -> list[str]:
        """Tokens of the sessions whose results are still here, oldest first."""
        listing = self.connection.run(f"ls -tr {shlex.quote(self.path('results'))} 2>/dev/null", timeout_s=30)
        return [name[: -len(".log")] for name in listing.stdout.split() if name.endswith(".log")]

    def read_log(self, token: str) -> list[str]:
        """Lines of a session's results; none when it left none."""
        path = self.path(f"results/{token}.log")
        if self.connection.run(f"[ -s {shlex.quote(path)} ]", timeout_s=30).code != 0:
            return []
        return log_lines(self.connection.pull(path))

    def remove_log(self, token: str) -> None:
        self.connection.run(f"rm -f {shlex.quote(self.path(f'results/{token}.log'))}", timeout_s=30)

    def remove(self, kept: Collection[str] = ()) -> None:
        """Ends programs of this directory and removes it, all but the `kept` entries; the claim last."""
        self.models = {}
        self._stop("scripts/[m]easure.sh")
        self._stop("[b]enchmark_model")
        directory = shlex.quote(self.directory)
        names = "|".join(shlex.quote(name) for name in ("owner", "owner.lock", *kept))
        loop = f'for entry in * .[!.]*; do case $entry in {names}) ;; *) rm -rf "$entry" ;; esac; done'
        rest = "rm -f owner owner.lock" if kept else f"cd / && rm -rf {directory}"
        self.run(f"cd {directory} && {{ {loop}; {rest}; }}", f"remove {self.directory}")


def _this_host() -> str:
    """user@computer, of the characters that claim.sh takes."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):  # a user without a name, as in some containers
        user = str(os.getuid()) if hasattr(os, "getuid") else "user"
    return re.sub(r"[^A-Za-z0-9_.@-]", "_", f"{user}@{platform.node()}")


def _parts(paths: Sequence[str]) -> Iterator[Sequence[str]]:
    return (paths[start : start + MOST_PATHS] for start in range(0, len(paths), MOST_PATHS))


def _batches(models: Mapping[str, bytes]) -> Iterable[dict[str, bytes]]:
    """Cuts the models into parts of about TAR_BYTES."""
    batch: dict[str, bytes] = {}
    for key, content in models.items():
        if batch and sum(map(len, batch.values())) + len(content) > TAR_BYTES:
            yield batch
            batch = {}
        batch[key] = content
    if batch:
        yield batch


def _tar(models: Mapping[str, bytes]) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for key, content in models.items():
            entry = tarfile.TarInfo(f"{key}.tflite")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return target.getvalue()
