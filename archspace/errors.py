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
└── SearchError         (search/errors.py)

A message says what is wrong, where (the value, the file), and what to do. The command line prints it as
one paragraph and exits with 1.
"""

from __future__ import annotations


class NetlatheError(Exception):
    """Base of all expected failures."""


class ArchspaceError(NetlatheError):
    """Base of archspace's failures."""


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
