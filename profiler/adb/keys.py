"""The RSA key by which a phone knows this computer: adb's own, so that one tap on Allow serves both."""

from __future__ import annotations

import base64
import contextlib
import os
import tempfile
from pathlib import Path

from adb_shell.auth.keygen import encode_pubkey, keygen, write_public_keyfile
from adb_shell.auth.sign_cryptography import CryptographySigner

from netlathe.profiler.errors import DeviceError

# What cryptography raises on files that are no RSA keys of 2048 bits without a passphrase.
NO_KEY = (ValueError, TypeError, AttributeError, OverflowError, AssertionError)


def default_key_path() -> Path:
    """Path at which adb keeps its key."""
    return Path.home() / ".android" / "adbkey"


def load_or_create_key(path: Path | None = None) -> CryptographySigner:
    """The key at `path` (adb's own by default) with its public half in `path`.pub.

    Missing files are made, the private one readable to its owner alone; nothing that exists is changed. Raises
    DeviceError for a key that cannot be read, or made.
    """
    path = path or default_key_path()
    public = path.with_name(path.name + ".pub")
    try:
        if not path.exists():
            _create(path)
        if not public.exists():
            _publish(path, public)
        signer = CryptographySigner(str(path))
        expected = base64.b64encode(encode_pubkey(str(path)))
    except OSError as error:
        raise DeviceError(
            f"cannot use the ADB key {path}: {error.strerror or error} ({error.filename}); make it readable to you, or "
            "move it away to get a new one"
        ) from error
    except NO_KEY as error:
        raise DeviceError(
            f"{path} is not an RSA key as adb makes it ({error}); move it away, and a new one is made"
        ) from error
    if signer.GetPublicKey().split()[:1] != [expected]:
        raise DeviceError(f"{public} does not belong to {path}; delete it, and it is made again")
    return signer


def _create(path: Path) -> None:
    path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".new-key-") as folder:  # mode 0700
        draft = Path(folder) / "adbkey"
        keygen(str(draft))
        draft.chmod(0o600)
        _link(draft, path)


def _publish(path: Path, public: Path) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".new-key-") as folder:
        draft = Path(folder) / "adbkey.pub"
        write_public_keyfile(str(path), str(draft))
        _link(draft, public)


def _link(draft: Path, path: Path) -> None:
    """Gives a complete file its name at once, unless somebody else was faster: then theirs counts."""
    with contextlib.suppress(FileExistsError):
        os.link(draft, path)
