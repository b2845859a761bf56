"""A network that the user already has, as decisions: widths of its layers, residual blocks to leave out, precisions."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from netlathe.archspace.residuals import ResidualBlock, residual_blocks

if TYPE_CHECKING:
    from netlathe.compress.coupling import ChannelGroup, CoupledChannels, FixedChannels, couple_channels
    from netlathe.compress.errors import CompressError
    from netlathe.compress.importance import Scores, magnitudes, most_important
    from netlathe.compress.joint import JointSpace, Sensitivity, joint_space
    from netlathe.compress.precision import (
        PrecisionSpace,
        check_precisions,
        node_precisions,
        precision_space,
        segments_of,
    )
    from netlathe.compress.quantization import sensitivity_by_weights
    from netlathe.compress.shaping import Shaper, pruned
    from netlathe.compress.widths import WidthSpace, width_space

_HOMES = {
    "ChannelGroup": "coupling",
    "CoupledChannels": "coupling",
    "FixedChannels": "coupling",
    "couple_channels": "coupling",
    "CompressError": "errors",
    "Scores": "importance",
    "magnitudes": "importance",
    "most_important": "importance",
    "JointSpace": "joint",
    "Sensitivity": "joint",
    "joint_space": "joint",
    "PrecisionSpace": "precision",
    "check_precisions": "precision",
    "node_precisions": "precision",
    "precision_space": "precision",
    "segments_of": "precision",
    "sensitivity_by_weights": "quantization",
    "Shaper": "shaping",
    "pruned": "shaping",
    "WidthSpace": "widths",
    "width_space": "widths",
}

__all__ = [
    "ChannelGroup",
    "CompressError",
    "CoupledChannels",
    "FixedChannels",
    "JointSpace",
    "PrecisionSpace",
    "ResidualBlock",
    "Scores",
    "Sensitivity",
    "Shaper",
    "WidthSpace",
    "check_precisions",
    "couple_channels",
    "joint_space",
    "magnitudes",
    "most_important",
    "node_precisions",
    "precision_space",
    "pruned",
    "residual_blocks",
    "segments_of",
    "sensitivity_by_weights",
    "width_space",
]


def __getattr__(name: str) -> Any:
    """Imports on first use: torch takes seconds, which what only refuses arguments need not spend."""
    if name not in _HOMES:
        raise AttributeError(f"module 'netlathe.compress' has no attribute {name!r}")
    return getattr(import_module(f"netlathe.compress.{_HOMES[name]}"), name)
