"""Whether this process was started as one of several."""

from __future__ import annotations

import os


def is_one_of_several() -> bool:
    """Whether torchrun or another starter has told this process of others, by torch's usual variables."""
    told = {name: os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")}
    return all(told.values()) and told["WORLD_SIZE"].isdecimal() and int(told["WORLD_SIZE"]) > 1
