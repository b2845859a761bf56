"""Memory that an .onnx file asks for, found before it is parsed: an empty message takes two bytes in the file and a
hundred in memory, so that small files could ask for gigabytes."""

from __future__ import annotations

from typing import Any

from onnx import ModelProto

from netlathe.archspace.errors import FormatError

MOST_MESSAGES = 300_000
"""Nodes, attributes, constants, ... of one file; large networks have some ten thousand."""
_MOST_DEPTH = 50
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


def check_messages(content: bytes) -> None:
    """Raises FormatError for a file of more than MOST_MESSAGES messages, or one that breaks off."""
    left = MOST_MESSAGES
    stack: list[tuple[Any, int, int, int]] = [(ModelProto.DESCRIPTOR, 0, len(content), 0)]
    while stack:
        kind, place, end, depth = stack.pop()
        inner = {f.number: f.message_type for f in kind.fields if f.message_type is not None}
        while place < end:
            key, place = _varint(content, place, end)
            number, wire = key >> 3, key & 7
            if wire == _LENGTH:
                length, place = _varint(content, place, end)
                if length > end - place:
                    raise FormatError("not an .onnx file, or a truncated one; check the path and the download")
                if number in inner:
                    left -= 1
                    if left < 0 or depth == _MOST_DEPTH:
                        raise FormatError(f"an .onnx file of more than {MOST_MESSAGES} parts, or nested too deeply")
                    stack.append((inner[number], place, place + length, depth + 1))
                place += length
            elif wire == _VARINT:
                _, place = _varint(content, place, end)
            elif wire in (_FIXED64, _FIXED32):
                place += 8 if wire == _FIXED64 else 4
            else:
                raise FormatError("not an .onnx file; check the path and the download")


def _varint(content: bytes, place: int, end: int) -> tuple[int, int]:
    """A number of seven bits a byte, and the place behind it."""
    value = shift = 0
    while place < end and shift < 70:
        byte = content[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return value, place
    raise FormatError("not an .onnx file, or a truncated one; check the path and the download")
