"""Which computers a phone trusts: RSA keys in Android's form, and the dialog that asks about new ones."""

from __future__ import annotations

import base64
import binascii
import os
import struct
from collections.abc import Iterable
from typing import NamedTuple

from .wire import ProtocolError

TOKEN_BYTES = 20
MODULUS_BYTES = 256
# Size in words, Montgomery's -1/n mod 2^32, modulus, Montgomery's R^2 mod n (both little-endian), exponent.
KEY = struct.Struct(f"<II{MODULUS_BYTES}s{MODULUS_BYTES}sI")
# DER of "a SHA-1 digest of 20 bytes follows" (RFC 8017, 9.2).
SHA1_PREFIX = bytes.fromhex("3021300906052b0e03021a05000414")


class PublicKey(NamedTuple):
    modulus: int
    exponent: int

    @classmethod
    def parse(cls, text: str) -> PublicKey:
        """From the content of an adbkey.pub: base64, then a comment such as user@host."""
        try:
            words, _, modulus, _, exponent = KEY.unpack(base64.b64decode(text.split()[0], validate=True))
        except (struct.error, binascii.Error, IndexError) as error:
            raise ProtocolError(f"not an Android public key: {error}") from error
        if words * 4 != MODULUS_BYTES:
            raise ProtocolError(f"a key of {words} words")
        return cls(int.from_bytes(modulus, "little"), exponent)

    def signed(self, token: bytes, signature: bytes) -> bool:
        """Whether `signature` is this key's, PKCS #1 v1.5; the token itself stands where a SHA-1 digest would."""
        padding = b"\0\1" + b"\xff" * (MODULUS_BYTES - 3 - len(SHA1_PREFIX) - len(token)) + b"\0"
        found = pow(int.from_bytes(signature, "big"), self.exponent, self.modulus)
        return found == int.from_bytes(padding + SHA1_PREFIX + token, "big")


class Trust:
    """The keys a phone trusts, and how its user answers the dialog about another one.

    `keys`: contents of adbkey.pub files. `answer_s`: seconds until the user allows a new key for good; None: never.
    `dialogs` counts how often the user was asked.
    """

    def __init__(self, keys: Iterable[str] = (), *, answer_s: float | None = 0.0) -> None:
        self.keys = {PublicKey.parse(key) for key in keys}
        self.answer_s = answer_s
        self.dialogs = 0

    def knows(self, token: bytes, signature: bytes) -> bool:
        return any(key.signed(token, signature) for key in self.keys)


def new_token() -> bytes:
    return os.urandom(TOKEN_BYTES)
