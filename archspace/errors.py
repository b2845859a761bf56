"""The root of every error that netlathe raises on purpose, and archspace's own branch of it.

NetlatheError
├── ArchspaceError
│   ├── GraphError      an op or graph whose shapes or attributes do not fit
│   ├── BlockError      a block with impossible values, or a name that does not parse
│   ├── SpaceError      a search space or architecture that does not hold together
│   ├── FormatError     a file that is not what it should be (corrupt, foreign, too new)
│   └── RecordError     latency records that cannot be used or mixed
├── ProfilerError       (profiler/errors.py)
├── PredictorError      (predictor/errors.py)
├── SearchError         (search/errors.py)
├── CompressError       (compress/errors.py)
└── DataError, TrainingError  (training/errors.py)

A message says what is wrong, where (the value, the file), and what to do. The command line prints it as
one paragraph and exits with 1.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import ClassVar

MOST_CHARACTERS = 500
"""Longest message about a file, which may hold names of any length."""
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that move a terminal's cursor, turn its text around, or cannot be printed."""


def printable(text: str, *, keep: str = "\n\t") -> str:
    """The text with control characters, but for those to `keep`, as Python escapes them: \\x1b."""
    return _CONTROL.sub(lambda m: m[0] if m[0] in keep else m[0].encode("unicode_escape").decode(), text)


def paragraph(text: str) -> str:
    """The text without control characters, its middle left out beyond MOST_CHARACTERS."""
    text = printable(text[: 20 * MOST_CHARACTERS] + text[20 * MOST_CHARACTERS :][-MOST_CHARACTERS:], keep="")
    half = MOST_CHARACTERS // 2
    return text if len(text) <= MOST_CHARACTERS else f"{text[: half - 5]} ... {text[-half:]}"


_MOST_OF_NAME = 80
"""Characters of a name that are compared with known ones, as that takes the square of them."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Words to stand behind an unknown name: ' (did you mean 'tiny'?)', with up to three known names that are near it,
    upper and lower case being alike; '' where none is."""
    from difflib import get_close_matches

    by_lower = {one.lower(): one for one in known}
    close = [by_lower[one] for one in get_close_matches(name[:_MOST_OF_NAME].lower(), by_lower, 3)]
    return f" (did you mean {' or '.join(map(repr, close))}?)" if close else ""


class NetlatheError(Exception):
    """Base of all expected failures."""

    is_paragraph: ClassVar[bool] = False
    """Whether the message is about the content of files, which might be anything, and so is cut to one paragraph."""

    is_told_elsewhere: ClassVar[bool] = False
    """Whether another process of the same run tells of it, so that this one need not."""

    def __str__(self) -> str:
        text = super().__str__()
        return paragraph(text) if self.is_paragraph else printable(text)


class ArchspaceError(NetlatheError):
    """Base of archspace's failures."""

    is_paragraph = True


class GraphError(ArchspaceError):
    """An op or graph whose shapes or attributes do not fit."""


class BlockError(ArchspaceError):
    """A block with impossible values, or a block name that does not parse."""


class SpaceError(ArchspaceError):
    """A search space or architecture that does not hold together."""


class FormatError(ArchspaceError):
    """A file that is corrupt, foreign, or newer than this version of netlathe."""


class RecordError(ArchspaceError):
    """Latency records that cannot be used or mixed."""
