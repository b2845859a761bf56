"""Profiles of which a part was measured in a bad hour."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path


def disturb(path: Path, keys: Iterable[str]) -> None:
    """Makes every second stored round of these graphs three times as long, so that their rounds disagree."""
    with closing(sqlite3.connect(path)) as db, db:
        for key in keys:
            rows = db.execute(
                "SELECT round, samples_ms FROM samples JOIN rounds ON round = id WHERE graph = ? ORDER BY setup, id",
                (key,),
            ).fetchall()
            longer = [(json.dumps([3 * ms for ms in json.loads(text)]), key, round_id) for round_id, text in rows[1::2]]
            db.executemany("UPDATE samples SET samples_ms = ? WHERE graph = ? AND round = ?", longer)
