"""Downloads one file over https, with limits."""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from netlathe.profiler.errors import DeviceError

SILENCE_S = 30.0
"""A server that says nothing for so long is gone."""

LONGEST_S = 600.0
"""A whole download."""

_CHUNK = 2**16


def download(url: str, target: Path, most_bytes: int, opener: urllib.request.OpenerDirector | None = None) -> bytes:
    """Content at `url`.

    Raises DeviceError with the reason, the URL, and `target`, where the user may put the file by hand. Only https is
    followed, whichever the host; only a server on 127.0.0.1 may speak plain http.
    """
    if not _is_allowed(url):
        raise DeviceError(f"{url}: programs are downloaded by https only")
    opener = opener or urllib.request.build_opener(OnlyHttps)
    try:
        with opener.open(url, timeout=SILENCE_S) as response:
            return _read(response, most_bytes)
    except urllib.error.HTTPError as error:
        error.close()
        reason = f"the server answered {error.code} {error.reason}"
    except (OSError, http.client.HTTPException, ValueError) as error:
        # urllib wraps what happens before the answer; what happens while it is read comes as it is.
        reason = str(getattr(error, "reason", "") or error) or type(error).__name__
    raise DeviceError(
        f"{url}: cannot be downloaded ({reason}). Try again, or fetch it with any computer and put it at {target}"
    )


class OnlyHttps(urllib.request.HTTPRedirectHandler):
    """Follows redirects to https, whichever the host."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        is_downgrade = urlsplit(req.full_url).scheme == "https" and urlsplit(newurl).scheme != "https"
        if is_downgrade or not _is_allowed(newurl):
            fp.close()
            raise ValueError(f"it redirects to {newurl}; only https is followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _is_allowed(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname == "127.0.0.1")


def _read(response: http.client.HTTPResponse, most_bytes: int) -> bytes:
    """Raises ValueError where the body is too large, too slow, or not whole."""
    announced = _length(response.headers)
    if announced is not None and announced > most_bytes:
        raise ValueError(f"{announced} bytes are too many, at most {most_bytes} are expected")
    deadline = time.monotonic() + LONGEST_S
    content = bytearray()
    while chunk := response.read1(_CHUNK):
        content += chunk
        if len(content) > most_bytes:
            raise ValueError(f"more than the {most_bytes} bytes that are expected")
        if time.monotonic() > deadline:
            raise ValueError(f"it took longer than {LONGEST_S:.0f} s")
    if announced is not None and len(content) != announced:
        raise ValueError(f"the connection broke after {len(content)} of {announced} bytes")
    return bytes(content)


def _length(headers: http.client.HTTPMessage) -> int | None:
    text = headers.get("Content-Length")
    return int(text) if text is not None and text.isdigit() else None
