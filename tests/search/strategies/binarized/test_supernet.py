"""The path-binarized supernet: gradients against the closed form, nothing but the path touched."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
import torch

from netlathe.archspace.blocks import ConvBlock, LinearHead, MBConv, Skip
from netlathe.archspace.spaces import SearchSpace
from netlathe.search.strategies.binarized.parameters import ArchitectureParameters, Gate, plain_gates, rescale_pairs
from netlathe.search.strategies.binarized.supernet import SuperNet
from netlathe.search.strategies.binarized.updates import Form, GradientUpdate
from netlathe.training.errors import TrainingError

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
        assert gate.inactive
        assert gate.active not in gate.inactive


def parameters_of(seed: int = 2) -> ArchitectureParameters:
    parameters = ArchitectureParameters([3, 2]).double()
    with torch.no_grad():
        parameters.alpha.normal_(generator=torch.Generator().manual_seed(seed))
    return parameters


def closed_form(
    supernet: SuperNet, images: torch.Tensor, parameters: ArchitectureParameters, gates: list[Gate]
) -> torch.Tensor:
    """dL/dalpha_i = sum_j dL/dg_j * p_j (delta_ij - p_i) over the gated candidates (ProxylessNAS, equation 4), with
    free gate values and every branch fully in the graph."""
    free = [torch.tensor([1.0] + [0.0] * len(g.inactive), dtype=torch.float64, requires_grad=True) for g in gates]
    x = supernet.positions[0]["0"](images)
    for position, (gate, g) in enumerate(zip(gates, free, strict=True)):
        outputs = [supernet.positions[1 + position][str(k)](x) for k in (gate.active, *gate.inactive)]
        x = sum(value * output for value, output in zip(g, outputs, strict=True))
    loss = supernet.positions[3]["0"](x).square().sum()
    expected = torch.zeros_like(parameters.alpha)
    for row, (gate, dl_dg) in enumerate(zip(gates, torch.autograd.grad(loss, free), strict=True)):
        gated = [gate.active, *gate.inactive]
        p = parameters.alpha[row, gated].detach().softmax(0)
        expected[row, gated] = p * (dl_dg - (dl_dg * p).sum())
    return expected


@pytest.mark.parametrize("form", ["pair", "full", "recompute"])
def test_alpha_gradients_equal_the_closed_form_of_binarized_gates(
    supernet: SuperNet, images: torch.Tensor, form: Form
) -> None:
    supernet.eval()
    parameters = parameters_of()
    gates = GradientUpdate(form).gates(parameters, torch.Generator().manual_seed(3))
    loss = supernet(images, gates).square().sum()
    (gradient,) = torch.autograd.grad(loss, parameters.alpha)
    torch.testing.assert_close(gradient, closed_form(supernet, images, parameters, gates), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("form", ["pair", "full", "recompute"])
def test_the_update_rule_gives_the_same_gradient_in_parts(supernet: SuperNet, images: torch.Tensor, form: Form) -> None:
    supernet.eval()
    parameters, rule = parameters_of(), GradientUpdate(form)

    def run(gates: Sequence[Gate]) -> Iterator[torch.Tensor]:
        for part in images.chunk(2):
            yield supernet(part, gates).square().sum()

    total, gradient, gates = rule.estimate(parameters, run, torch.Generator().manual_seed(3))
    assert total == pytest.approx(float(supernet(images, gates).square().sum().detach()))
    torch.testing.assert_close(gradient, closed_form(supernet, images, parameters, gates), rtol=1e-12, atol=1e-12)
    assert all(w.grad is None for w in supernet.parameters())


def saved_bytes(supernet: SuperNet, images: torch.Tensor, gates: list[Gate]) -> int:
    weights = {w.untyped_storage().data_ptr() for w in supernet.parameters()}
    seen: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = supernet(images, gates).sum()
    del loss
    return sum(seen.values())


def test_inactive_candidates_keep_no_inner_activations(supernet: SuperNet, images: torch.Tensor) -> None:
    parameters = parameters_of()
    gates = parameters.sample_all(torch.Generator().manual_seed(3))
    path = saved_bytes(supernet, images, plain_gates([g.active for g in gates]))
    output_bytes = [5 * 4 * 6 * 6 * 8, 5 * 6 * 3 * 3 * 8]
    others = sum(len(gate.inactive) * size for gate, size in zip(gates, output_bytes, strict=True))
    assert path < saved_bytes(supernet, images, gates) <= path + sum(output_bytes) + others + 256
    again = parameters.sample_all(torch.Generator().manual_seed(3), recompute=True)
    assert saved_bytes(supernet, images, again) <= path + sum(output_bytes) + 256


def test_only_the_active_path_gets_weight_gradients(supernet: SuperNet, images: torch.Tensor) -> None:
    supernet(images, plain_gates((1, 0))).sum().backward()
    has_gradient = {
        (p, c): any(w.grad is not None for w in block.parameters())
        for p, candidates in enumerate(supernet.positions)
        for c, block in candidates.items()
    }
    assert {key for key, given in has_gradient.items() if given} == {(0, "0"), (1, "1"), (2, "0"), (3, "0")}


def test_an_inactive_branch_adds_no_weight_gradients_in_the_architecture_step(
    supernet: SuperNet, images: torch.Tensor
) -> None:
    values = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
    supernet(images, [Gate(0, (1,), values), Gate(0)]).sum().backward()
    assert all(w.grad is None for w in supernet.positions[1]["1"].parameters())
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
        assert {gate.active, *gate.inactive} == {0, 1}


def test_a_decided_position_still_draws_two_candidates_that_exist() -> None:
    parameters = ArchitectureParameters([10, 3])
    with torch.no_grad():
        parameters.alpha[:, 0] = 200  # all others underflow
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        gate = parameters.sample_pairs(generator)[1]
        assert {gate.active, *gate.inactive} < {0, 1, 2}


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
    rescale_pairs(parameters, before, [Gate(0, (2,))])
    after = parameters.alpha.detach()
    assert float(after[0, [0, 2]].exp().sum()) == pytest.approx(float(before[0, [0, 2]].exp().sum()))
    assert float(after[0, 0] - after[0, 2]) == pytest.approx(0.4)
    assert after[0, [1, 3]].tolist() == pytest.approx([-0.2, 0.1])


def test_a_dropped_candidate_is_gone_with_its_weights_and_never_drawn(supernet: SuperNet, images: torch.Tensor) -> None:
    before = sum(w.numel() for w in supernet.parameters())
    gone = sum(w.numel() for w in supernet.drop(1, 0))
    assert gone == sum(w.numel() for w in SuperNet(SPACE).candidate(1, 0).parameters())
    assert sum(w.numel() for w in supernet.parameters()) == before - gone
    with pytest.raises(TrainingError, match="candidate 0 of position 1 was dropped"):
        supernet.extract((0, 0))
    supernet.extract((1, 0))
    parameters = ArchitectureParameters([3, 2]).double()
    parameters.drop(0, 0)
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        gate = parameters.sample_pairs(generator)[0]
        assert {gate.active, *gate.inactive} == {1, 2}


def test_a_position_with_one_candidate_left_runs_it_alone(supernet: SuperNet, images: torch.Tensor) -> None:
    parameters = parameters_of()
    parameters.drop(1, 1)
    for rule in (GradientUpdate("pair"), GradientUpdate("full"), GradientUpdate("recompute")):
        gates = rule.gates(parameters, torch.Generator().manual_seed(0))
        assert gates[1] == Gate(0)
        loss = supernet(images, gates).square().sum()
        (gradient,) = torch.autograd.grad(loss, parameters.alpha)
        assert gradient[1].tolist() == [0, 0, 0]
        before = parameters.alpha.detach().clone()
        rule.finish(parameters, before, gates)
        torch.testing.assert_close(parameters.alpha.detach(), before)
