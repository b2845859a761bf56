"""A phone as folder and namespaces: real mksh, toybox, affinities, exit codes and signals, without the hardware.

Only what a shell without root sees is there. All that tests steer (heat, battery, settings, faults) is plain files
under /loopback/state, which the phone's own tools (`tools/`) read and write.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from . import tree
from .namespace import Namespace, loopback_unavailable
from .server_process import ServerProcess
from .state import PhoneState

__all__ = ["ANDROID_9", "BENCHMARK_MODEL", "PIXEL_8", "LoopbackPhone", "litert_program", "loopback_unavailable"]

BENCHMARK_MODEL = Path(__file__).with_name("benchmark_model")
ABIS = {"x86_64": "x86_64", "aarch64": "arm64-v8a"}


def litert_program(folder: Path) -> Path:
    """LiteRT's newer tool of the same name, for the same server."""
    program = folder / "benchmark_litert_model"
    text = BENCHMARK_MODEL.read_text().replace("*sys.argv]", '"benchmark_litert_model", *sys.argv[1:]]')
    program.write_text(text.replace('"""', '"""Prints BENCHMARK RESULTS. ', 1))
    return program


# The host's processor runs benchmark_model, so the phone says that it has that one.
PIXEL_8 = {
    "ro.product.manufacturer": "Google",
    "ro.product.model": "Pixel 8",
    "ro.product.name": "shiba",
    "ro.product.cpu.abi": ABIS.get(os.uname().machine, os.uname().machine),
    "ro.product.cpu.abilist": ABIS.get(os.uname().machine, os.uname().machine),
    "ro.soc.manufacturer": "Google",
    "ro.soc.model": "Tensor G3",
    "ro.board.platform": "zuma",
    "ro.build.version.release": "14",
    "ro.build.version.sdk": "34",
    "ro.build.fingerprint": "google/shiba/shiba:14/UD1A.230803.041/10808477:user/release-keys",
    "ro.serialno": "LOOPBACK0001",
    "sys.boot_completed": "1",
}
# No thermal service, no fixed performance mode, no ro.soc.model.
ANDROID_9 = {
    **{key: value for key, value in PIXEL_8.items() if not key.startswith("ro.soc.")},
    "ro.build.version.release": "9",
    "ro.build.version.sdk": "28",
    "ro.build.fingerprint": "google/shiba/shiba:9/PQ1A.181105.017/5081125:user/release-keys",
}
# Android writes these before any shell runs; PATH as adbd of Android 14 sets it.
ENVIRONMENT = {
    "PATH": "/product/bin:/apex/com.android.runtime/bin:/apex/com.android.art/bin:/system_ext/bin:/system/bin:"
    "/system/xbin:/odm/bin:/vendor/bin:/vendor/xbin",
    "HOME": "/",
    "SHELL": "/system/bin/sh",
    "TMPDIR": "/data/local/tmp",
    "ANDROID_DATA": "/data",
    "ANDROID_ROOT": "/system",
    "EXTERNAL_STORAGE": "/sdcard",
    "HOSTNAME": "shiba",
    "USER": "shell",
    "LOGNAME": "shell",
}


class LoopbackPhone(PhoneState):
    """A running phone. Use it in `with`, or call `close`.

    Args:
        root: a folder of its own for the phone's files; may be missing or empty.
        properties: what getprop says; sdk below 29 has no thermal service, below 30 no fixed performance mode.
        data_mb: size of /data, a tmpfs then, so that it can be full; None: as much as the host's disk has.
        data_options: how that tmpfs is mounted, as "mode=0771,noexec".
        cores_khz: maximum frequency of each core; None: as many cores as the host has, so that every mask is valid.
        uptime_s: seconds since boot at the start; `reboot` begins at 0.
    """

    def __init__(
        self,
        root: Path,
        *,
        properties: Mapping[str, str] = PIXEL_8,
        data_mb: int | None = None,
        data_options: str = "mode=0771",
        cores_khz: Sequence[int] | None = None,
        uptime_s: float = 7200.0,
    ) -> None:
        folder = root.resolve() / "tree"
        cores_khz = tuple(cores_khz or tree.pixel_8_cores(os.cpu_count() or 1))
        tree.build(folder, cores_khz)
        super().__init__(folder, properties, cores_khz)
        self._namespace = Namespace(folder, tree.mounts(folder, data_mb, data_options), tree.boot_mounts())
        self._namespace.boot(uptime_s)
        try:
            self._server = ServerProcess(folder, log=root / "litert_server.log")
        except BaseException:
            self._namespace.close()
            raise

    # Running commands

    @property
    def environment(self) -> dict[str, str]:
        """The variables that a shell of adbd has; give them to subprocess as env."""
        return dict(ENVIRONMENT)

    def shell_argv(self, command: str) -> list[str]:
        """The words that run a command line in the phone, for subprocess or asyncio, with `environment`."""
        return self._namespace.argv(["/system/bin/sh", "-c", command])

    def path(self, path: str) -> Path:
        """Where the host finds a file of the phone; valid until the next reboot."""
        return Path(f"/proc/{self._namespace.pid}/root") / path.lstrip("/")

    def reboot(self) -> None:
        """Ends all of the phone's processes and starts again: /data and settings stay, modes and boot_id do not."""
        self._namespace.stop()
        self.reset_volatile()
        self._namespace.boot(uptime_s=0.0)

    def close(self) -> None:
        """Ends all that this phone started. Files stay, except a tmpfs at /data."""
        try:
            self._server.close()
        finally:
            self._namespace.close()

    def __enter__(self) -> "LoopbackPhone":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
