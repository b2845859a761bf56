"""From a block's canonical name back to the block."""

from __future__ import annotations

import re

from archspace.blocks import Block, ConvBlock, LinearHead, MBConv, Pool, SeparableConv, Skip, Zero
from archspace.errors import BlockError

_SHAPE = r"s(?P<stride>\d+)_c(?P<cin>\d+)-(?P<cout>\d+)_(?P<height>\d+)x(?P<width>\d+)"
_SIZE = r"(?P<height>\d+)x(?P<width>\d+)"
_ACT = r"(?P<activation>[a-z0-9_]+?)"
_SYM = r"(?P<padding>_sym)?"
_PATTERNS: tuple[tuple[type[Block], str], ...] = (
    (
        MBConv,
        rf"mbconv_k(?P<kernel>\d+)_e(?P<expand>[\d.]+)_{_SHAPE}_{_ACT}(?:_se(?P<se>[\d.]+))?(?P<residual>_nores)?{_SYM}",
    ),
    (ConvBlock, rf"conv_k(?P<kernel>\d+)_{_SHAPE}_{_ACT}{_SYM}"),
    (SeparableConv, rf"sepconv_k(?P<kernel>\d+)_{_SHAPE}_{_ACT}{_SYM}"),
    (Pool, rf"(?P<mode>avg|max)pool_k(?P<kernel>\d+)_s(?P<stride>\d+)_c(?P<channels>\d+)_{_SIZE}"),
    (LinearHead, rf"linear_c(?P<cin>\d+)-(?P<classes>\d+)_{_SIZE}"),
    (Skip, rf"skip_{_SHAPE}"),
    (Zero, rf"zero_{_SHAPE}"),
)


def parse_block(name: str) -> Block:
    """The block of that canonical name. Raises BlockError for anything else, with what a name looks like."""
    for cls, pattern in _PATTERNS:
        match = re.fullmatch(pattern, name)
        if match:
            block = cls(**_fields(match))
            if block.name != name:
                raise BlockError(f"{name!r} is not canonical; the same block is called {block.name!r}")
            return block
    examples = "mbconv_k5_e6_s2_c24-40_56x56_relu6, conv_k3_s2_c3-32_224x224_relu6, skip_s1_c24-24_56x56"
    raise BlockError(f"unknown block name {name!r}; names look like {examples}")


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
