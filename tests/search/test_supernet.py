"""The path-binarized supernet: gradients against the closed form, nothing but the path touched."""

from __future__ import annotations

import pytest
import torch

from archspace.blocks import ConvBlock, LinearHead, MBConv, Skip
from archspace.spaces import SearchSpace
from search.errors import TrainingError
from search.parameters import ArchitectureParameters, Gate, plain_gates, rescale_pairs
from search.supernet import SuperNet

SPACE = SearchSpace(
    "toy",
    (
        (ConvBlock(1, 4, 6, 6),),
        (MBConv(4, 4, 6, 6, kernel=3, expand=2), MBConv(4, 4, 6, 6, kernel=5, expand=1), Skip(4, 4, 6, 6)),
        (MBConv(4, 6, 6, 6, 2, kernel=3, expand=2), MBConv(4, 6, 6, 6, 2, kernel=3, expand=1)),
        (LinearHead(6, 3, 3, 3),),
    ),
)


@pytest.fixture
def supernet() -> SuperNet:
    return SuperNet(SPACE, generator=torch.Generator().manual_seed(0)).double()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(5, 1, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_gates_are_binary_forward() -> None:
    parameters = ArchitectureParameters([3, 2])
    for gate in parameters.sample_pairs(torch.Generator().manual_seed(0)):
        assert gate.values is not None
        torch.testing.assert_close(gate.values.detach(), torch.tensor([1.0, 0.0]))
        assert gate.active != gate.inactive


def test_alpha_gradients_equal_the_closed_form_of_binarized_gates(supernet: SuperNet, images: torch.Tensor) -> None:
    """dL/dalpha_i = sum_j dL/dg_j * p_j (delta_ij - p_i) over the pair (ProxylessNAS, equation 4)."""
    supernet.eval()
    parameters = ArchitectureParameters([3, 2]).double()
    with torch.no_grad():
        parameters.alpha.normal_(generator=torch.Generator().manual_seed(2))
    gates = parameters.sample_pairs(torch.Generator().manual_seed(3))
    loss = supernet(images, gates).square().sum()
    (gradient,) = torch.autograd.grad(loss, parameters.alpha)

    # The same loss with free gate values, every branch fully in the graph.
    free = [torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True) for _ in gates]
    x = supernet.positions[0][0](images)
    for position, (gate, g) in enumerate(zip(gates, free, strict=True)):
        candidates = supernet.positions[1 + position]
        x = g[0] * candidates[gate.active](x) + g[1] * candidates[gate.inactive](x)
    full = supernet.positions[3][0](x).square().sum()
    expected = torch.zeros_like(parameters.alpha)
    for row, (gate, dl_dg) in enumerate(zip(gates, torch.autograd.grad(full, free), strict=True)):
        pair = [gate.active, gate.inactive]
        p = parameters.alpha[row, pair].detach().softmax(0)
        expected[row, pair] = p * (dl_dg - (dl_dg * p).sum())
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-12)


def test_only_the_active_path_gets_weight_gradients(supernet: SuperNet, images: torch.Tensor) -> None:
    supernet(images, plain_gates((1, 0))).sum().backward()
    has_gradient = {
        (p, c): any(w.grad is not None for w in block.parameters())
        for p, candidates in enumerate(supernet.positions)
        for c, block in enumerate(candidates)
    }
    assert {key for key, given in has_gradient.items() if given} == {(0, 0), (1, 1), (2, 0), (3, 0)}


def test_an_inactive_branch_adds_no_weight_gradients_in_the_architecture_step(
    supernet: SuperNet, images: torch.Tensor
) -> None:
    values = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
    supernet(images, [Gate(0, 1, values), Gate(0)]).sum().backward()
    assert all(w.grad is None for w in supernet.positions[1][1].parameters())
    assert values.grad is not None
    assert (values.grad != 0).all()


@pytest.mark.parametrize("path", [(0, 0), (1, 1), (2, 0)])
def test_an_extracted_network_computes_what_its_path_computes(
    supernet: SuperNet, images: torch.Tensor, path: tuple[int, int]
) -> None:
    supernet(images, plain_gates(path))  # moves BatchNorm's statistics off their start
    supernet.eval()
    network = supernet.extract(path).double().eval()
    network.load_state_dict(supernet.extract(path).state_dict())
    torch.testing.assert_close(network(images), supernet(images, plain_gates(path)), rtol=1e-6, atol=1e-6)


def test_an_extracted_network_shares_no_memory_with_the_supernet(supernet: SuperNet) -> None:
    network = supernet.extract((0, 0))
    addresses = {w.data_ptr() for w in supernet.parameters()}
    assert not addresses & {w.data_ptr() for w in network.parameters()}


def test_a_wrong_number_of_gates_is_refused(supernet: SuperNet, images: torch.Tensor) -> None:
    with pytest.raises(TrainingError, match="2 positions are searchable, but 1 gates"):
        supernet(images, [Gate(0)])


def test_masked_candidates_have_no_probability_and_are_never_drawn() -> None:
    parameters = ArchitectureParameters([3, 2])
    assert parameters.probabilities()[1].tolist() == [0.5, 0.5, 0.0]
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        assert parameters.sample_path(generator)[1] < 2
        assert parameters.uniform_path(generator)[1] < 2
        gate = parameters.sample_pairs(generator)[1]
        assert {gate.active, gate.inactive} == {0, 1}


def test_a_decided_position_still_draws_two_candidates_that_exist() -> None:
    parameters = ArchitectureParameters([10, 3])
    with torch.no_grad():
        parameters.alpha[:, 0] = 200  # all others underflow
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        gate = parameters.sample_pairs(generator)[1]
        assert {gate.active, gate.inactive} < {0, 1, 2}


def test_paths_are_drawn_by_their_probabilities() -> None:
    parameters = ArchitectureParameters([2])
    with torch.no_grad():
        parameters.alpha.copy_(torch.tensor([[0.0, 3.0]]).log_softmax(1))
    generator = torch.Generator().manual_seed(0)
    share = sum(parameters.sample_path(generator)[0] for _ in range(4000)) / 4000
    assert share == pytest.approx(0.9526, abs=0.015)  # e^3 / (1 + e^3), about 4 sigma


def test_rescaling_keeps_the_pairs_mass_and_its_new_ratio() -> None:
    parameters = ArchitectureParameters([4])
    before = torch.tensor([[0.3, -0.2, 0.9, 0.1]])
    moved = torch.tensor([[0.8, -0.2, 0.4, 0.1]])
    with torch.no_grad():
        parameters.alpha.copy_(moved)
    rescale_pairs(parameters, before, [Gate(0, 2)])
    after = parameters.alpha.detach()
    assert float(after[0, [0, 2]].exp().sum()) == pytest.approx(float(before[0, [0, 2]].exp().sum()))
    assert float(after[0, 0] - after[0, 2]) == pytest.approx(0.4)
    assert after[0, [1, 3]].tolist() == pytest.approx([-0.2, 0.1])
