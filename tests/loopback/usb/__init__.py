"""A USB bus on which phones of 127.0.0.1 are plugged in, for clients with the real libusb.

Clients run with umockdev's preload library, which leads the system calls on /sys and /dev/bus/usb here. What a phone's
adbd makes of the packets is as on a phone; the daemon behind it is the one of this package.
"""

from .bus import UsbBus, UsbPhone, usb_unavailable
from .identity import IN_ENDPOINT, OUT_ENDPOINT, Identity

__all__ = ["IN_ENDPOINT", "OUT_ENDPOINT", "Identity", "UsbBus", "UsbPhone", "usb_unavailable"]
