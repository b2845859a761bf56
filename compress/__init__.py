"""A network that the user already has, as decisions: widths of its layers, residual blocks to leave out, precisions."""

from netlathe.archspace.residuals import ResidualBlock, residual_blocks
from netlathe.compress.coupling import ChannelGroup, CoupledChannels, FixedChannels, couple_channels
from netlathe.compress.errors import CompressError
from netlathe.compress.importance import Scores, magnitudes, most_important
from netlathe.compress.joint import JointSpace, Sensitivity, joint_space
from netlathe.compress.precision import PrecisionSpace, check_precisions, node_precisions, precision_space, segments_of
from netlathe.compress.quantization import sensitivity_by_weights
from netlathe.compress.shaping import Shaper, pruned
from netlathe.compress.widths import WidthSpace, width_space

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
