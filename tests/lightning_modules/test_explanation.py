"""Maps of where a network reads age: against MONAI, against algebra, upright, and blind to nothing but the weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy.stats import spearmanr
from torch import Tensor, nn

from lightning_modules.cell_positions import CellPositions
from lightning_modules.explanation import (
    NOISY_COPIES,
    activation_cells,
    explain_scans,
    noise_source,
    on_grid,
    predicted_ages,
    smoothgrad,
)
from lightning_modules.networks.age_bins import expected_ages_years
from lightning_modules.networks.build import build_network
from tasks.records import ExplanationMethod, NetworkSpec

SPEC = NetworkSpec(
    channels=(6, 8, 8), age_range_years=(10.0, 90.0), bin_width_years=5.0, label_sigma_years=5.0, dropout=0.0
)
GRID = (20, 24, 16)
INTERIOR = (slice(3, -3), slice(3, -3), slice(3, -3))
# A place to the right, in front and above; RAS+ indices rise that way.
PLANTED = (slice(12, 16), slice(16, 20), slice(8, 12))


def network_of(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return build_network(SPEC).eval()


def brain_like(seed: int) -> Tensor:
    return torch.randn((1, *GRID), generator=torch.Generator().manual_seed(seed))


class AgeOfMonai(nn.Module):
    """A network whose one output is the predicted age, as MONAI's classes want it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, volumes: Tensor) -> Tensor:
        return predicted_ages(self.network, SPEC, volumes)[:, None]


def test_smoothgrad_is_monais_times_the_root_of_the_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    from monai.visualize import SmoothGrad

    network, volume = network_of(0), brain_like(1)
    noise = iter(torch.randn((NOISY_COPIES, 1, *GRID), generator=noise_source(3, "a")))
    monkeypatch.setattr(torch, "normal", lambda mean, std, size, **_: (mean + std * next(noise)).reshape(size))
    theirs = SmoothGrad(AgeOfMonai(network).eval(), verbose=False)(volume[None].clone(), index=0)[0, 0]
    monkeypatch.undo()
    _, ours = smoothgrad(network, SPEC, volume, noise_source(3, "a"))
    torch.testing.assert_close(ours, theirs * NOISY_COPIES**0.5, rtol=1e-4, atol=1e-7)


def test_grad_cam_is_monais_before_its_normaliser_turns_it_over() -> None:
    from monai.visualize import GradCAM

    lowered = 0
    for seed in range(4):
        network, volume = network_of(seed), brain_like(1)
        # Before MONAI hangs its hooks on the network.
        cells = activation_cells(network, SPEC, volume)
        cam = GradCAM(AgeOfMonai(network).eval(), "network.encoder", lambda _: lambda x: x, lambda x: x)
        theirs = cam(volume[None].clone().requires_grad_(), class_idx=0)[0, 0]
        torch.testing.assert_close(cells.clamp_min(0), theirs.detach(), rtol=1e-4, atol=1e-7)
        lowered += int((cells < 0).sum())
    assert lowered, "Grad-RAM keeps what Grad-CAM drops"


def test_a_network_in_training_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="training mode"):
        activation_cells(network_of(0).train(), SPEC, brain_like(1))


@pytest.mark.parametrize("name", ["sfcn", "resnet18"])
def test_grad_ram_adds_up_to_the_predicted_age_of_a_regression(name: Any) -> None:
    """Average pooling and one linear layer to years: the cells are each place's part of what is above the constant."""
    spec = replace(SPEC, name=name, head="regression")
    torch.manual_seed(0)
    network = build_network(spec).eval()
    volume = torch.randn((1, 40, 40, 40), generator=torch.Generator().manual_seed(2))
    constant = 50.0 + 20.0 * network.head.linear.bias.item()
    age = predicted_ages(network, spec, volume[None]).item()
    assert activation_cells(network, spec, volume).sum().item() == pytest.approx(age - constant, rel=1e-3, abs=1e-4)


NETWORKS = ["sfcn", "inception_resnet_v2", "resnet18", "resnet50", "densenet121", "densenet169", "multitask_unet"]


@pytest.mark.parametrize(("name", "head"), [(name, "soft_label") for name in NETWORKS] + [("resnet18", "regression")])
def test_every_network_and_head_has_maps_on_the_prepared_grid(name: Any, head: Any, tmp_path: Path) -> None:
    """Also where the network sees a part of the grid, two of three channels, on its own scale."""
    spec = NetworkSpec(
        name=name, head=head, channels=(4, 4, 4), inputs=("ratio", "T1w"), input_channels=2, crop_voxels=(56, 58, 56)
    )
    spec = replace(spec, scaling="unit")
    torch.manual_seed(0)
    network = build_network(spec).eval()
    save_file(
        {key: value.contiguous() for key, value in network.state_dict().items()}, tmp_path / "weights.safetensors"
    )
    np.save(tmp_path / "scan.npy", np.random.default_rng(0).normal(size=(3, 60, 61, 54)).astype(np.float16))
    for method in ("grad_ram", "smoothgrad") if name == "sfcn" else ("grad_ram",):
        scans = [("a", tmp_path / "scan.npy")]
        (one,) = explain_scans(spec, [tmp_path / "weights.safetensors"], scans, ["T1w", "T2w", "ratio"], method, 0)
        assert one.signed.shape == (60, 61, 54)
        assert np.isfinite(one.signed).all()
        assert one.signed[2:58, 1:59].any()
        assert not one.signed[:2].any()
        assert not one.signed[58:].any()
        assert not one.signed[:, :1].any()
        assert not one.signed[:, 59:].any()


def sees_only(place: tuple[slice, ...]) -> nn.Module:
    """An SFCN of one halving that passes brightness on, with a head by which brightness means age."""
    spec = planted_spec()
    network = build_network(spec).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network.encoder.blocks[0][0].weight[:, 0, 1, 1, 1] = 1.0
        network.encoder.mixing[0].weight.fill_(1.0)
        for norm in (network.encoder.blocks[0][1], network.encoder.mixing[1]):
            norm.weight.fill_(1.0)
        network.head.linear.weight[:, 0] = torch.linspace(-5, 5, len(network.head.linear.bias))
    return network


def planted_spec() -> NetworkSpec:
    return NetworkSpec(channels=(1, 1), age_range_years=(10.0, 90.0), bin_width_years=5.0, dropout=0.0)


@pytest.mark.parametrize("method", ["grad_ram", "grad_cam"])
def test_a_bright_place_shows_where_it_is(method: ExplanationMethod, tmp_path: Path) -> None:
    save_file(sees_only(PLANTED).state_dict(), tmp_path / "weights.safetensors")
    volume = np.zeros((1, *GRID), dtype=np.float16)
    volume[(0, *PLANTED)] = 3.0
    np.save(tmp_path / "scan.npy", volume)
    (one,) = explain_scans(
        planted_spec(), [tmp_path / "weights.safetensors"], [("a", tmp_path / "scan.npy")], ["T1w"], method, 0
    )
    assert one.signed.shape == GRID
    weights = np.maximum(one.signed - one.signed.max() / 2, 0)
    centre = [float((np.indices(GRID)[axis] * weights).sum() / weights.sum()) for axis in range(3)]
    assert centre == pytest.approx([13.5, 17.5, 9.5], abs=0.5)


def test_smoothgrad_shows_the_place_that_the_network_looks_at(tmp_path: Path) -> None:
    """Ages that are read from one corner alone: the gradient is there, and mirrored places stay dark."""

    class Corner(nn.Module):
        def forward(self, volumes: Tensor) -> Tensor:
            brightness = volumes[(slice(None), 0, *PLANTED)].mean(dim=(1, 2, 3))
            return brightness[:, None] * torch.linspace(-5, 5, 16)

    _, magnitude = smoothgrad(Corner().eval(), SPEC, brain_like(3), noise_source(0, "a"))
    outside = torch.ones(GRID, dtype=torch.bool)
    outside[PLANTED] = False
    assert (magnitude[PLANTED] > 0).all()
    assert (magnitude[outside] == 0).all()


def test_positions_are_kept_where_the_grid_is_no_multiple_of_the_cells() -> None:
    cells = np.zeros((2, 3, 2), dtype=np.float32)
    cells[1, 2, 0] = 1.0
    spread = on_grid(cells, CellPositions((16.0,) * 3, (7.5,) * 3), (40, 48, 40))
    # Constant beyond the last middle, half-way down between two middles.
    assert spread[24:, 40:, :8].min() == pytest.approx(1.0, abs=0.05)
    assert spread[15:17, 47, 0].mean() == pytest.approx(0.5, abs=0.05)
    assert spread[:8].max() == 0


@pytest.mark.parametrize("method", ["smoothgrad", "grad_ram"])
def test_maps_do_not_depend_on_company_and_are_seeded(method: ExplanationMethod, tmp_path: Path) -> None:
    weights = []
    for seed in (0, 1):
        save_file(
            {k: v.contiguous() for k, v in network_of(seed).state_dict().items()}, tmp_path / f"{seed}.safetensors"
        )
        weights.append(tmp_path / f"{seed}.safetensors")
    scans = []
    for number in range(3):
        np.save(tmp_path / f"{number}.npy", brain_like(number).numpy())
        scans.append((f"scan-{number}", tmp_path / f"{number}.npy"))
    together = list(explain_scans(SPEC, weights, scans, ["T1w"], method, 5))
    (alone,) = explain_scans(SPEC, weights, scans[2:], ["T1w"], method, 5)
    np.testing.assert_array_equal(together[2].signed, alone.signed)
    np.testing.assert_array_equal(together[2].magnitude, alone.magnitude)
    members = [next(explain_scans(SPEC, [path], scans[2:], ["T1w"], method, 5)) for path in weights]
    np.testing.assert_allclose(alone.signed, np.mean([one.signed for one in members], axis=0), atol=1e-6)
    if method == "smoothgrad":
        (other,) = explain_scans(SPEC, weights, scans[2:], ["T1w"], method, 6)
        assert not np.array_equal(other.signed, alone.signed)


# Adebayo et al. 2018, arXiv:1810.03292: a map that stays as it is when the weights are drawn anew explains no model.


@pytest.fixture(scope="module")
def trained() -> tuple[nn.Module, list[Tensor]]:
    """A tiny network that reads age from the brightness of the planted place, and some scans of its kind."""
    torch.manual_seed(0)
    network = build_network(SPEC)
    generator = torch.Generator().manual_seed(1)
    ages = torch.rand(48, generator=generator) * 60 + 20
    volumes = torch.randn((48, 1, *GRID), generator=generator) * 0.5
    volumes[(slice(None), 0, *PLANTED)] += ((ages - 50) / 10)[:, None, None, None]
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    network.train()
    for step in range(60):
        batch = slice(16 * (step % 3), 16 * (step % 3) + 16)
        optimizer.zero_grad()
        loss = (expected_ages_years(network(volumes[batch]), SPEC) - ages[batch]).square().mean()
        loss.backward()
        optimizer.step()
    network.eval()
    with torch.no_grad():
        error = (predicted_ages(network, SPEC, volumes) - ages).abs().mean().item()
    assert error < 8, "the network has learned nothing, so that its map could show nothing"
    return network, list(volumes[:4])


def randomised_from_the_head(network: nn.Module, layers: int) -> nn.Module:
    """The network with its last layers' weights drawn anew, as a fresh network has them."""
    import copy

    torch.manual_seed(7)
    other, fresh = copy.deepcopy(network), build_network(SPEC)
    names = [
        name for name, module in other.named_modules() if isinstance(module, nn.Conv3d | nn.BatchNorm3d | nn.Linear)
    ]
    for name in names[::-1][:layers]:
        other.get_submodule(name).load_state_dict(fresh.get_submodule(name).state_dict())
    return other.eval()


def map_by(method: str, network: nn.Module, volume: Tensor) -> np.ndarray:
    if method == "smoothgrad":
        # At the rim fewer windows reach a voxel, whatever the weights.
        return smoothgrad(network, SPEC, volume, noise_source(0, "a"), copies=10)[1].numpy()[INTERIOR]
    if method == "grad_ram":
        return activation_cells(network, SPEC, volume).numpy()
    # An edge detector: it looks at the scan alone.
    return np.linalg.norm(np.gradient(volume[0].numpy()), axis=0)


def agreements(method: str, trained: tuple[nn.Module, list[Tensor]]) -> list[float]:
    """Rank correlation with the trained network's map as more and more layers are drawn anew, from the head down."""
    network, volumes = trained
    found = []
    for layers in range(8):
        other = randomised_from_the_head(network, layers)
        pairs = [(map_by(method, network, v), map_by(method, other, v)) for v in volumes]
        found.append(float(np.mean([spearmanr(a, b, axis=None).statistic for a, b in pairs])))
    return found


def depends_on_the_weights(agreements: list[float]) -> bool:
    """The map is the same with the same weights, and another with weights drawn anew."""
    return agreements[0] > 0.999 and max(agreements[1:]) < 0.9 and abs(agreements[-1]) < 0.3


@pytest.mark.parametrize("method", ["smoothgrad", "grad_ram"])
def test_randomised_weights_change_the_map(method: str, trained: tuple[nn.Module, list[Tensor]]) -> None:
    found = agreements(method, trained)
    assert depends_on_the_weights(found), found


def test_a_method_that_ignores_the_weights_fails_this_check(trained: tuple[nn.Module, list[Tensor]]) -> None:
    assert not depends_on_the_weights(agreements("edges", trained))
    assert min(agreements("edges", trained)) == pytest.approx(1.0)


def test_what_makes_a_scan_older_is_where_age_was_planted(trained: tuple[nn.Module, list[Tensor]]) -> None:
    """The network pools away where things are, but its maps of an older and a younger scan differ there."""
    network, volumes = trained
    ages = [predicted_ages(network, SPEC, volume[None]).item() for volume in volumes]
    order = np.argsort(ages)
    older, younger = volumes[order[-1]], volumes[order[0]]
    difference = map_by("grad_ram", network, older) - map_by("grad_ram", network, younger)
    # Cells of 4 voxels, whose neighbours look at some of the same ones.
    peak = np.unravel_index(difference.argmax(), difference.shape)
    assert np.abs(np.array(peak) - (3, 4, 2)).max() <= 1
    assert difference[3, 4, 2] > 3 * np.abs(difference[::-1, ::-1, ::-1][3, 4, 2])
