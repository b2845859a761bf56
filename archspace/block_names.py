"""From a block's canonical name back to the block."""

from __future__ import annotations

import re

from netlathe.archspace.blocks import Block, ConvBlock, LinearHead, MBConv, Pool, SeparableConv, Skip, Zero
from netlathe.archspace.errors import BlockError

_N, _R = r"[0-9]{1,10}", r"[0-9.]{1,20}"
"""Whole and other numbers: a name of thousands of digits is none."""
_SHAPE = rf"s(?P<stride>{_N})_c(?P<cin>{_N})-(?P<cout>{_N})_(?P<height>{_N})x(?P<width>{_N})"
_SIZE = rf"(?P<height>{_N})x(?P<width>{_N})"
_ACT = r"(?P<activation>[a-z0-9_]{1,20}?)"
_SYM = r"(?P<padding>_sym)?"
_PATTERNS: tuple[tuple[type[Block], str], ...] = (
    (
        MBConv,
        rf"mbconv_k(?P<kernel>{_N})_e(?P<expand>{_R})_{_SHAPE}_{_ACT}(?:_se(?P<se>{_R}))?(?P<residual>_nores)?{_SYM}",
    ),
    (ConvBlock, rf"conv_k(?P<kernel>{_N})_{_SHAPE}_{_ACT}{_SYM}"),
    (SeparableConv, rf"sepconv_k(?P<kernel>{_N})_{_SHAPE}_{_ACT}{_SYM}"),
    (Pool, rf"(?P<mode>avg|max)pool_k(?P<kernel>{_N})_s(?P<stride>{_N})_c(?P<channels>{_N})_{_SIZE}"),
    (LinearHead, rf"linear_c(?P<cin>{_N})-(?P<classes>{_N})_{_SIZE}"),
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
                raise BlockError(f"{name!r:.120} is not canonical; the same block is called {block.name!r}")
            return block
    examples = "mbconv_k5_e6_s2_c24-40_56x56_relu6, conv_k3_s2_c3-32_224x224_relu6, skip_s1_c24-24_56x56"
    raise BlockError(f"unknown block name {name!r:.120}; names look like {examples}")


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
