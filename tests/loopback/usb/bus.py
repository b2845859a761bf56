"""The bus: sysfs, device nodes, and what is plugged in."""

from __future__ import annotations

import contextlib
import ctypes.util
import os
import shutil
import sys
import tempfile
import threading
import time
from itertools import count
from pathlib import Path

from ..adbd import AdbDaemon
from .function import AdbFunction
from .identity import SPEEDS, Identity
from .usbfs import UsbNode

PRELOAD = "libumockdev-preload.so.0"
HUB = "sys/devices/pci0000:00/0000:00:14.0/usb1"
BUS_NUMBER = 1
MAJOR = 189
NOBODY = 65534


def usb_unavailable() -> str | None:
    """Why there can be no bus here, or None."""
    if not sys.platform.startswith("linux"):
        return "usbfs is Linux's"
    for library, package in (("umockdev-preload", "umockdev"), ("usb-1.0", "libusb-1.0-0")):
        if not ctypes.util.find_library(library):
            return f"there is no lib{library} (Debian: apt install {package})"
    return None


class UsbPhone:
    """A phone's cable to the bus: what libusb sees of it, and what tests steer.

    Whenever the daemon hangs up (its link is cut, the phone reboots), the device is gone from the bus, and comes back
    under a new number once the daemon can be reached.
    """

    def __init__(self, bus: UsbBus, daemon: AdbDaemon, identity: Identity, port: int, is_readable: bool) -> None:
        self._bus, self._daemon, self._identity, self._is_readable = bus, daemon, identity, is_readable
        self._name = f"{BUS_NUMBER}-{port}"
        self._changing = threading.Lock()
        self._is_closed = False
        self.hang_ups = 0
        """How often adbd was sent what it does not understand, before the present node."""
        self.node: UsbNode | None = None
        self.plug()

    @property
    def function(self) -> AdbFunction:
        assert self.node is not None
        return self.node.function

    def halt(self, endpoint: int) -> None:
        """The endpoint answers with a stall until it is cleared."""
        assert self.node is not None
        with self.function.lock:
            self.node.halted.add(endpoint)
            self.node.go_on()

    def plug(self) -> None:
        """Plugs the cable in: the device gets a new number, as Linux gives one each time."""
        with self._changing:
            if self.node is not None or self._is_closed:
                return
            self._number = self._bus.next_number()
            self._devnode = f"bus/usb/{BUS_NUMBER:03}/{self._number:03}"
            path = self._bus.folder / "dev" / self._devnode
            function = AdbFunction(self._daemon.port, self._identity.packet_bytes)
            function.on_lost = self._come_back
            sock = self._bus.folder / "ioctl" / "dev" / self._devnode
            self.node = UsbNode(path, sock, function, self._identity)
            if not self._is_readable:
                path.chmod(0o000)
                if os.getuid() == 0:
                    os.chown(path, NOBODY, NOBODY)
            self._describe()

    def _describe(self) -> None:
        folder = self._bus.folder / HUB / self._name
        folder.mkdir()
        uevent = f"MAJOR={MAJOR}\nMINOR={self._number - 1}\nDEVNAME={self._devnode}\nDEVTYPE=usb_device\n"
        texts = {
            "uevent": uevent, "busnum": BUS_NUMBER, "devnum": self._number, "bConfigurationValue": 1,
            "speed": SPEEDS[self._identity.packet_bytes], "serial": self._identity.serial,
        }  # fmt: skip
        for key, value in texts.items():
            (folder / key).write_text(f"{value}\n")
        (folder / "descriptors").write_bytes(self._identity.descriptors)
        (folder / "subsystem").symlink_to("../../../../../bus/usb")
        self._link.symlink_to(f"../../../{HUB.removeprefix('sys/')}/{self._name}")

    @property
    def _link(self) -> Path:
        return self._bus.folder / "sys/bus/usb/devices" / self._name

    def unplug(self) -> None:
        """Pulls the cable: what is on its way is lost, and the phone hangs up."""
        with self._changing:
            node, self.node = self.node, None
            if node is None:
                return
            self._link.unlink()
            shutil.rmtree(self._bus.folder / HUB / self._name)
            (self._bus.folder / "dev" / self._devnode).unlink()
            node.unplug()
            self.hang_ups += node.function.hang_ups
            self._bus.keep_until_closed(node)

    def _come_back(self) -> None:
        self.unplug()
        while not self._daemon.is_plugged and not self._is_closed:
            time.sleep(0.02)
        self.plug()

    def close(self) -> None:
        self._is_closed = True
        self.unplug()


class UsbBus:
    """A bus in a folder of its own. Clients run with `environment`. Use it in `with`."""

    def __init__(self) -> None:
        # Short, as the names of sockets are limited to 108 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="usb-"))
        self.folder.chmod(0o755)
        self._numbers = count(2)
        self._phones: list[UsbPhone] = []
        self._gone: list[UsbNode] = []
        for path in ("sys/bus/usb/devices", "sys/class", HUB, "dev/bus/usb/001", "run/udev/data"):
            (self.folder / path).mkdir(parents=True)
        # Runtimes look there for the cores of this computer.
        (self.folder / "sys/devices/system").symlink_to("/sys/devices/system")

    @property
    def environment(self) -> dict[str, str]:
        """Variables for clients, and nothing else of this process's."""
        return {"LD_PRELOAD": PRELOAD, "UMOCKDEV_DIR": str(self.folder)}

    def plug(self, daemon: AdbDaemon, identity: Identity, *, port: int = 1, is_readable: bool = True) -> UsbPhone:
        """Connects a phone with a port of the hub. One that is not readable belongs to somebody else."""
        self._phones.append(UsbPhone(self, daemon, identity, port, is_readable))
        return self._phones[-1]

    def next_number(self) -> int:
        """A device number that was not used yet."""
        return next(self._numbers)

    def keep_until_closed(self, node: UsbNode) -> None:
        """Clients may still hold on to what is unplugged."""
        self._gone.append(node)

    def close(self) -> None:
        for phone in self._phones:
            phone.close()
        for node in self._gone:
            node.close()
        with contextlib.suppress(OSError):
            shutil.rmtree(self.folder)

    def __enter__(self) -> UsbBus:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
