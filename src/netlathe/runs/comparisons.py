"""Log of a run's comparison of finalists: a kill costs the network that was being compared, no other."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import Any

from netlathe.archspace.errors import FormatError
from netlathe.archspace.files import check_plain
from netlathe.archspace.jsonfile import json_digest

SCHEMA = "netlathe.comparisons/1"
MOST_BYTES = 1 << 26

Seen = tuple[tuple[int, ...], int]
"""A network's choices, and the part of the images."""


class ComparisonLog(MutableMapping[Seen, float]):
    """Cross-entropies by network and part of the images, each a line of a file, on the disk before the next is asked
    for. What the file holds of another comparison, whose `inputs` have another digest, counts for nothing; nor does a
    line that was cut off. Raises OSError where the file cannot be read or written."""

    def __init__(self, path: Path, inputs: Mapping[str, Any]) -> None:
        self.path, self.head = path, json.dumps({"schema": SCHEMA, "run": json_digest(dict(inputs))})
        self._losses = dict(self._read())
        self._is_ours = bool(self._losses)

    def __getitem__(self, seen: Seen) -> float:
        return self._losses[seen]

    def __setitem__(self, seen: Seen, loss: float) -> None:
        if not self._is_ours:
            self.path.write_text(f"{self.head}\n", encoding="utf-8")
            self._is_ours = True
        choices, part = seen
        with self.path.open("a", encoding="utf-8") as stream:
            # A line of its own, also after one that was cut off.
            stream.write(f"\n{json.dumps([list(choices), part, float(loss)])}")
            stream.flush()
            os.fsync(stream.fileno())
        self._losses[seen] = loss

    def __delitem__(self, seen: Seen) -> None:
        raise TypeError("what was compared stays compared")

    def __iter__(self) -> Iterator[Seen]:
        return iter(self._losses)

    def __len__(self) -> int:
        return len(self._losses)

    def _read(self) -> Iterator[tuple[Seen, float]]:
        try:
            check_plain(self.path)
            with self.path.open(encoding="utf-8", errors="replace") as stream:
                head, *lines = stream.read(MOST_BYTES).splitlines() or [""]
        except (FileNotFoundError, FormatError):
            return
        for line in lines if head == self.head else ():
            try:
                choices, part, loss = json.loads(line)
                seen, value = (tuple(map(int, choices)), int(part)), float(loss)
            except (ValueError, TypeError, OverflowError, RecursionError):
                continue
            if math.isfinite(value):
                yield seen, value
