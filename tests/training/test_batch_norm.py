"""BatchNorm of several processes: the statistics of all, whatever the values of one process are."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from netlathe.training.batch_norm import _Normalise
from netlathe.training.ranks import Ranks


class Shares(Ranks):
    """One of two processes, whose other one has told what it has of a batch."""

    def __init__(self, other: Tensor) -> None:
        super().__init__()
        self.other = other

    def rows(self, row: Tensor) -> Tensor:
        count = row.new_tensor([self.other.numel() // self.other.shape[1]])
        mean, variance = self.other.mean((0, 2, 3)), self.other.var((0, 2, 3), correction=0)
        return torch.stack([row, torch.cat([mean, variance, count])])


@pytest.mark.parametrize("channels", [[0], [0, 1, 2], []])
def test_a_channel_without_differences_in_a_share_has_the_variance_of_the_whole(channels: list[int]) -> None:
    x, other = torch.randn(2, 3, 3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x[:, channels] = 1.5  # as behind an activation that is at its end for all of them
    whole = torch.cat([x, other])
    y, mean, variance, count = _Normalise.apply(x, None, None, 1e-5, Shares(other))  # type: ignore[no-untyped-call]
    torch.testing.assert_close(mean, whole.mean((0, 2, 3)))
    torch.testing.assert_close(variance, whole.var((0, 2, 3), correction=0))
    assert int(count) == whole.numel() // 3
    torch.testing.assert_close(y, F.batch_norm(whole, None, None, training=True, eps=1e-5)[: len(x)])
