"""From a block's canonical name back to the block."""

from __future__ import annotations

import re

from netlathe.archspace.blocks import BLOCKS, Block
from netlathe.archspace.errors import BlockError


def parse_block(name: str) -> Block:
    """The block of that canonical name. Raises BlockError for anything else, with what a name looks like."""
    for cls in BLOCKS:
        match = re.fullmatch(cls.pattern, name)
        if match:
            block = cls(**_fields(match))
            if block.name != name:
                raise BlockError(f"{name!r:.120} is not canonical; the same block is called {block.name!r}")
            return block
    examples = "mbconv_k5_e6_s2_c24-40_56x56_relu6, conv_k3_s2_c3-32_224x224_relu6, skip_s1_c24-24_56x56"
    raise BlockError(f"unknown block name {name!r:.120}; names look like {examples}")


def is_block_name(name: str) -> bool:
    """Whether a name begins as a block's does."""
    return any(name.partition("_")[0] in cls.prefixes for cls in BLOCKS)


def _fields(match: re.Match[str]) -> dict[str, object]:
    """Constructor arguments from a name's parts."""
    fields: dict[str, object] = {}
    for field, text in match.groupdict().items():
        if field == "padding":
            fields[field] = "symmetric" if text else "same"
        elif field == "residual":
            fields[field] = text is None
        elif field == "activation":
            fields[field] = None if text == "none" else text
        elif field in ("expand", "se"):
            fields[field] = _number(text or "0")
        elif field == "mode":
            fields[field] = text
        else:
            fields[field] = int(text)
    return fields


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise BlockError(f"{text!r} is not a number") from None
