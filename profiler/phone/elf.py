"""Reader of as much of the ELF format as tells whether a phone can run a file (Tool Interface Standard, ELF 1.2;
elf(5))."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from netlathe.profiler.errors import DeviceError

_ABIS = {(2, 183): "arm64-v8a", (1, 40): "armeabi-v7a", (2, 62): "x86_64", (1, 3): "x86"}
"""(class, machine) -> Android's name: EM_AARCH64, EM_ARM, EM_X86_64, EM_386."""

_EXECUTABLE, _SHARED = 2, 3
_INTERPRETER = 3


@dataclass(frozen=True)
class Elf:
    """An executable for one ABI."""

    abi: str
    interpreter: str | None
    """Path of the dynamic linker; None for a static executable."""


def read_elf(content: bytes, name: str, advice: str) -> Elf:
    """Reads the headers. Raises DeviceError, ending in `advice`, on anything else than a whole executable."""
    if not content.startswith(b"\x7fELF"):
        raise DeviceError(f"{name}: {_other(content)}; {advice}")
    try:
        return _read(content)
    except ValueError as error:
        raise DeviceError(f"{name}: {error}; {advice}") from None
    except (struct.error, OverflowError):  # headers beyond the end, or beyond any
        raise DeviceError(f"{name}: is cut off or damaged, {len(content)} bytes of a program; {advice}") from None


def _other(content: bytes) -> str:
    """Kind of a file that is no program."""
    start = content[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not content.strip():
        return "is empty"
    if content.startswith(b"PK\x03\x04"):
        return "is an .apk or .zip; the benchmark app does not do, the program of the same name does"
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "is a web page, not a program: the download went wrong"
    return "is neither a program (ELF) nor a script (#!)"


def _read(content: bytes) -> Elf:
    bits, order = struct.unpack_from("BB", content, 4)
    if bits not in (1, 2) or order != 1:
        raise ValueError("is a program for an unknown kind of processor")
    kind, machine = struct.unpack_from("<HH", content, 16)
    if (bits, machine) not in _ABIS:
        raise ValueError(f"is a program for a kind of processor that no phone has (ELF machine {machine})")
    # Offsets and counts of program and section headers: e_phoff, e_shoff; e_phentsize, e_phnum, e_shentsize, e_shnum.
    program_at, section_at = struct.unpack_from("<QQ" if bits == 2 else "<II", content, 32 if bits == 2 else 28)
    sizes = struct.unpack_from("<HHHH", content, 54 if bits == 2 else 42)
    interpreter, end = None, section_at + sizes[2] * sizes[3]
    for index in range(sizes[1]):
        part_kind, offset, size = _program_header(content, program_at + index * sizes[0], bits)
        end = max(end, offset + size)
        if part_kind == _INTERPRETER:
            interpreter = content[offset : offset + size].rstrip(b"\0").decode("ascii", "replace")
    if end > len(content):
        raise ValueError(f"is cut off: {len(content)} bytes of {end}")
    # Android runs only position-independent programs, which look like libraries but for their dynamic linker.
    if kind != _EXECUTABLE and not (kind == _SHARED and interpreter):
        raise ValueError("is a library or an object file, not a program")
    return Elf(_ABIS[bits, machine], interpreter)


def _program_header(content: bytes, at: int, bits: int) -> tuple[int, int, int]:
    """Type, offset and size in the file of one segment."""
    if bits == 2:
        kind, _, offset, _, _, size = struct.unpack_from("<IIQQQQ", content, at)
    else:
        kind, offset, _, _, size = struct.unpack_from("<IIIII", content, at)
    return int(kind), int(offset), int(size)
