"""What holds for each network, head and normalisation alike."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import get_args

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lightning_modules.fit import ONE_VOXEL_STRIDES
from lightning_modules.networks.age_network import AgeNetwork
from lightning_modules.networks.build import ages_of_outputs, build_network, expected_ages_of, load_network
from lightning_modules.networks.multitask_unet import MultitaskUNet
from tasks.records import NetworkName, NetworkSpec

NAMES = get_args(NetworkName)
SMALLEST_CHANNELS = {"sfcn": (4, 8, 4), "multitask_unet": (4, 6, 8, 10)}


def tiny(name: str, **changes: object) -> NetworkSpec:
    spec = NetworkSpec(
        name=name,  # type: ignore[arg-type]
        channels=SMALLEST_CHANNELS.get(name, (4,)),
        age_range_years=(0.0, 100.0),
        bin_width_years=10.0,
        dropout=0.0,
    )
    return replace(spec, **changes)  # type: ignore[arg-type]


def seeded(spec: NetworkSpec) -> AgeNetwork:
    torch.manual_seed(1)
    return build_network(spec)


def grid_of(name: str) -> tuple[int, int, int]:
    return (30, 36, 30) if name.startswith("densenet") else (20, 25, 18)


def volumes(name: str, scans: int = 2, channels: int = 1) -> Tensor:
    return torch.randn(scans, channels, *grid_of(name), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize(
    ("name", "millions"),
    # sfcn: Peng et al. 2021; inception_resnet_v2: the study's public code, counted there, and its outputs are equal;
    # densenets: MONAI's with one output; resnets: He et al. 2016 in 3D, counted by hand below.
    [("sfcn", 2.950401), ("inception_resnet_v2", 49.429747), ("densenet121", 11.243649), ("densenet169", 18.544385)],
)
def test_published_networks_have_their_number_of_weights(name: str, millions: float) -> None:
    with torch.device("meta"):
        network = build_network(NetworkSpec(name=name, head="regression"))  # type: ignore[arg-type]
    assert sum(weight.numel() for weight in network.parameters()) == round(millions * 1e6)


@pytest.mark.parametrize(
    ("name", "blocks", "expansion"), [("resnet18", (2, 2, 2, 2), 1), ("resnet50", (3, 4, 6, 3), 4)]
)
def test_resnets_have_the_weights_of_the_paper_in_3d(name: str, blocks: tuple[int, ...], expansion: int) -> None:
    with torch.device("meta"):
        network = build_network(NetworkSpec(name=name, head="regression"))  # type: ignore[arg-type]
    expected, before = 343 * 64 + 2 * 64, 64
    for width, count in zip((64, 128, 256, 512), blocks, strict=True):
        after = width * expansion
        for block in range(count):
            if expansion == 1:
                expected += 27 * before * width + 27 * width * width + 4 * width
            else:
                expected += before * width + 27 * width * width + width * after + 4 * width + 2 * after
            if block == 0 and before != after:
                expected += before * after + 2 * after
            before = after
    assert sum(weight.numel() for weight in network.parameters()) == expected + before + 1


@pytest.mark.parametrize(
    ("name", "grid", "maps"),
    [
        ("inception_resnet_v2", (118, 142, 118), (1536, 4, 5, 4)),
        ("inception_resnet_v2", (40, 48, 40), (1536, 2, 2, 2)),
        ("inception_resnet_v2", (30, 36, 30), (1536, 1, 2, 1)),
        ("resnet18", (118, 142, 118), (512, 4, 5, 4)),
        ("resnet50", (160, 192, 160), (2048, 5, 6, 5)),
        ("densenet121", (118, 142, 118), (1024, 3, 4, 3)),
        ("densenet169", (40, 48, 40), (1664, 1, 1, 1)),
        ("sfcn", (160, 192, 160), (64, 5, 6, 5)),
    ],
)
def test_published_networks_have_their_last_maps(name: str, grid: tuple[int, ...], maps: tuple[int, ...]) -> None:
    with torch.device("meta"):
        network = build_network(NetworkSpec(name=name)).eval()  # type: ignore[arg-type]
        assert network.map_layer(torch.empty(1, 1, *grid)).shape == (1, *maps)


@pytest.mark.parametrize(("name", "head"), list(product(NAMES, ["soft_label", "regression"])))
def test_the_gradient_reaches_every_weight_and_is_the_slope_of_the_loss(name: str, head: str) -> None:
    """A step along it changes the loss by its squared length; a shortcut that is detached would not."""
    spec = tiny(name, head=head, norm="group", input_channels=2)
    network = seeded(spec).double()
    scans, ages_years = volumes(name, 2, 2).double(), torch.tensor([15.0, 85.0], dtype=torch.float64)
    weights = dict(network.named_parameters())
    gradients = torch.autograd.grad(loss_of(network, spec, scans, ages_years), list(weights.values()))
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)
    assert not [key for key, gradient in zip(weights, gradients, strict=True) if not bool(gradient.any())]
    squared = sum(float(gradient.square().sum()) for gradient in gradients)
    step = 1e-6 / squared**0.5
    losses = []
    with torch.no_grad():
        for sign in (1, -2):
            for weight, gradient in zip(weights.values(), gradients, strict=True):
                weight.add_(gradient, alpha=sign * step)
            losses.append(float(loss_of(network, spec, scans, ages_years)))
    assert (losses[0] - losses[1]) / (2 * step) == pytest.approx(squared, rel=1e-3)


def loss_of(network: AgeNetwork, spec: NetworkSpec, scans: Tensor, ages_years: Tensor) -> Tensor:
    if not isinstance(network, MultitaskUNet):
        return (ages_of_outputs(network(scans), spec) - ages_years).square().mean()
    tasks = network.tasks_of(scans)
    assert tasks.white_matter_logits.shape == (2, 1, *scans.shape[2:])
    assert tasks.reconstruction.shape == scans.shape
    assert tasks.ages_by_scale.shape == (2, 3, tasks.ages.shape[1])
    torch.testing.assert_close(tasks.ages, network(scans))
    others = tasks.white_matter_logits.square().mean() + (tasks.reconstruction - scans).square().mean()
    return (ages_of_outputs(tasks.ages, spec) - ages_years).square().mean() + others


@pytest.mark.parametrize(("name", "head"), list(product(NAMES, ["soft_label", "regression"])))
def test_weights_travel_and_a_scan_is_predicted_alike_in_any_company(name: str, head: str, tmp_path: Path) -> None:
    spec = tiny(name, head=head)
    network = seeded(spec)
    network(volumes(name))
    path = tmp_path / "weights.safetensors"
    save_file({key: tensor.contiguous() for key, tensor in network.state_dict().items()}, path)
    loaded = load_network(spec, path)
    scans = volumes(name, 3)
    together = expected_ages_of(loaded, spec, scans)
    assert together.dtype == torch.float64
    assert together.shape == (3,)
    torch.testing.assert_close(together, expected_ages_of(network.eval(), spec, scans), rtol=0, atol=0)
    alone = torch.cat([expected_ages_of(loaded, spec, scan[None]) for scan in scans])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-3)
    assert len(set(together.tolist())) == 3


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A process group of one, which warns each time."""
    store = tmp_path_factory.mktemp("store") / "group"
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=0, world_size=1)
    torch.set_warn_always(True)
    yield
    torch.set_warn_always(False)
    torch.distributed.destroy_process_group()


@pytest.mark.filterwarnings(f"ignore:{ONE_VOXEL_STRIDES}")
@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("name", NAMES)
def test_ddp_finds_the_gradients_laid_out_as_the_weights(name: str) -> None:
    """Else it warns, and copies them at every step."""

    class Training(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = seeded(tiny(name))

        def forward(self, scans: Tensor) -> Tensor:
            tasks_of = getattr(self.network, "tasks_of", self.network)
            given = tasks_of(scans)
            return sum(part.square().mean() for part in (given if isinstance(given, tuple) else (given,)))  # type: ignore[return-value]

    training = nn.parallel.DistributedDataParallel(Training())
    for _ in range(2):
        training(volumes(name)).backward()


@pytest.mark.parametrize("name", NAMES)
def test_a_head_on_features_is_the_network(name: str) -> None:
    network = seeded(tiny(name)).eval()
    features = network.features(volumes(name))
    assert features.ndim == 2
    assert len(features) == 2
    outputs = network(volumes(name))
    assert outputs.shape == (2, 10)
    assert torch.equal(network.head(features), outputs)


@pytest.mark.parametrize("name", NAMES)
def test_the_map_layer_gives_maps_that_the_age_depends_on(name: str) -> None:
    network = seeded(tiny(name, head="regression")).eval()
    seen: list[Tensor] = []
    hook = network.map_layer.register_forward_hook(lambda _module, _inputs, maps: seen.append(maps))
    age = network(volumes(name, 1))
    hook.remove()
    (maps,) = seen
    assert maps.ndim == 5
    (gradient,) = torch.autograd.grad(age.sum(), maps)
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize(("name", "norm"), list(product(NAMES, ["group", "instance"])))
def test_without_batch_norm_training_and_evaluation_agree(name: str, norm: str) -> None:
    """Only so can the gradient over two processes' halves of a batch be that of the batch."""
    network = seeded(tiny(name, norm=norm))
    assert not any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in network.modules())
    side = network.smallest_side_voxels
    scans = torch.randn(2, 1, side, side, side, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(network.train()(scans), network.eval()(scans))
    torch.testing.assert_close(network(scans)[:1], network(scans[:1]), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("name", "norm"), list(product(NAMES, ["batch", "instance"])))
def test_the_smallest_grid_trains_and_a_smaller_one_is_refused(name: str, norm: str) -> None:
    with torch.device("meta"):
        network = build_network(tiny(name, norm=norm))
    side = network.smallest_side_voxels
    with torch.device("meta"):
        network.features(torch.empty(2, 1, side, side, side))
        with pytest.raises(ValueError, match=f"every side at least {side} voxels, got"):
            network.features(torch.empty(2, 1, side, side - 1, side))
        with pytest.raises(ValueError, match=r"shape \(n, 1, i, j, k\)"):
            network.features(torch.empty(2, 2, side, side, side))


@pytest.mark.parametrize("name", NAMES)
def test_a_regression_starts_at_the_middle_of_the_ages(name: str) -> None:
    network = seeded(tiny(name, head="regression", age_range_years=(0.0, 2.0))).eval()
    ages_years = network(volumes(name))
    assert ages_years.shape == (2, 1)
    assert (ages_years - 1).abs().max() < 1.0
    # Its zero is the middle.
    head = network.head
    assert torch.equal(head(torch.zeros(1, network.features(volumes(name)).shape[1])), torch.ones(1, 1))


def test_half_precision_does_not_round_ages() -> None:
    network = seeded(tiny("sfcn", head="regression")).eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert network.features(volumes("sfcn")).dtype == torch.bfloat16
        ages_years = network(volumes("sfcn"))
    assert ages_years.dtype == torch.float32


def test_the_age_of_the_multitask_network_is_the_mean_of_its_scales_at_first_and_then_learned() -> None:
    network = seeded(tiny("multitask_unet", head="regression"))
    assert isinstance(network, MultitaskUNet)
    tasks = network.eval().tasks_of(volumes("multitask_unet"))
    torch.testing.assert_close(tasks.ages, tasks.ages_by_scale.mean(dim=1))
    with torch.no_grad():
        network.head.scale_logits.copy_(torch.tensor([0.0, 50.0, 0.0]))
    torch.testing.assert_close(network(volumes("multitask_unet")), tasks.ages_by_scale[:, 1])


def test_the_image_is_reconstructed_from_the_coarsest_maps_alone() -> None:
    """Else it could be copied through."""
    network = seeded(tiny("multitask_unet")).eval()
    scales = [maps.detach().requires_grad_() for maps in network._scales(volumes("multitask_unet"))]
    of_image = torch.autograd.grad(network.decoders["reconstruction"](scales).sum(), scales, allow_unused=True)
    assert [gradient is not None for gradient in of_image] == [False, False, False, True]
    of_white_matter = torch.autograd.grad(network.decoders["white_matter"](scales).sum(), scales, allow_unused=True)
    assert all(gradient is not None for gradient in of_white_matter)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "alexnet"}, "no network is called 'alexnet'; known: sfcn, inception_resnet_v2"),
        ({"head": "ranking"}, "no head is called 'ranking'"),
        ({"norm": "layer"}, "no normalisation is called 'layer'"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"channels": (4,)}, "two blocks or more"),
        ({"channels": (4, 8), "name": "multitask_unet"}, "three scales or more"),
        ({"channels": (), "name": "resnet18"}, "one block or more"),
        ({"head": "regression", "age_range_years": (50.0, 50.0)}, "ascending range"),
    ],
)
def test_a_specification_of_no_network_is_refused(change: dict[str, object], message: str) -> None:
    spec = replace(tiny("sfcn"), **change)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=message):
        build_network(spec)
