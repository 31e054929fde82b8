"""FeatureNetwork: its maps are those of torchvision's own layers; frozen, never saved; what it refuses."""

import gc
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from leyden_plugins.style_transfer.features import FeatureNetwork

MEAN, STD = (torch.tensor(values)[:, None, None] for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


@pytest.fixture
def images() -> Tensor:
    return torch.rand(2, 3, 40, 56, generator=torch.Generator().manual_seed(0))


def built_alone(name: str) -> nn.Module:
    """What `random` promises: torchvision's own initialisation from seed 0."""
    options = {"init_weights": False, "transform_input": True} if name == "googlenet" else {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network: nn.Module = torchvision.models.get_model(name, **options)
    return network.eval()


def save_features(path: Path, name: str = "squeezenet1_1", layers: int = 99, dtype: Any = torch.float32) -> str:
    """The weights of the first layers of a network."""
    state = built_alone(name).state_dict()
    numbered = {key: key.split(".") for key in state}
    chosen = [key for key, (part, number, *_) in numbered.items() if part == "features" and int(number) < layers]
    kept = {key: state[key].to(dtype) for key in chosen}
    torch.save(kept, path)
    return str(path)


def test_maps_are_what_the_layers_give_before_later_ones_write_over_them(images: Tensor) -> None:
    net = FeatureNetwork("squeezenet1_1", "random", [0, "features.1", 3])
    alone: Any = built_alone("squeezenet1_1").features
    convolved = F.conv2d((images - MEAN) / STD, alone[0].weight, alone[0].bias, stride=2)
    found = net(images)
    assert list(found) == ["0", "features.1", "3"]
    torch.testing.assert_close(found["0"], convolved)
    assert found["0"].min() < 0, "the ReLU behind it has written over it"
    torch.testing.assert_close(found["features.1"], convolved.relu())
    torch.testing.assert_close(found["3"], alone[3](F.max_pool2d(convolved.relu(), 3, 2, ceil_mode=True)))


def test_a_relu_that_a_block_uses_twice(images: Tensor) -> None:
    alone: Any = built_alone("resnet18")
    stem = alone.maxpool(F.relu(alone.bn1(alone.conv1((images - MEAN) / STD))))
    block = alone.layer1[0]
    first = block.bn1(block.conv1(stem))
    second = block.bn2(block.conv2(first.relu()))
    found = FeatureNetwork("resnet18", "random", ["layer1.0.bn1", "layer1.0.bn2", "layer1.0"])(images)
    torch.testing.assert_close(found["layer1.0.bn1"], first)
    torch.testing.assert_close(found["layer1.0.bn2"], second)
    torch.testing.assert_close(found["layer1.0"], (second + stem).relu())
    assert min(found["layer1.0.bn1"].min(), found["layer1.0.bn2"].min()) < 0


def test_a_relu_that_is_no_module(images: Tensor) -> None:
    """GoogLeNet calls the function, in place; and its weights expect pictures that it rescales itself."""
    alone: Any = built_alone("googlenet")
    rescaled = alone._transform_input((images - MEAN) / STD)
    expected = alone.conv1.bn(alone.conv1.conv(rescaled))
    found = FeatureNetwork("googlenet", "random", ["conv1.bn", "conv1"])(images)
    torch.testing.assert_close(found["conv1.bn"], expected)
    torch.testing.assert_close(found["conv1"], expected.relu())


def test_only_the_layers_that_lead_to_the_last_are_there() -> None:
    net = FeatureNetwork("squeezenet1_1", "random", [3, 1])
    kinds = [type(layer) for layer in net.graph.modules() if not list(layer.children())]
    assert kinds.count(nn.Conv2d) == 1 + 3, "the first convolution, and the three of the first fire module"
    assert not any(name.startswith("features.4") for name, _ in net.named_buffers())


def test_it_is_frozen_and_no_state_dict_holds_it(images: Tensor) -> None:
    net = FeatureNetwork("resnet18", "random", ["layer1"])
    before = {name: value.clone() for name, value in net.named_buffers()}
    holder = nn.Sequential(net, nn.Identity())
    holder.train()
    assert not any(module.training for module in net.modules())
    assert list(holder.parameters()) == []
    assert holder.state_dict() == {}
    pictures = images.requires_grad_()
    net(pictures)["layer1"].sum().backward()
    assert pictures.grad is not None
    assert pictures.grad.abs().sum() > 0
    assert all(torch.equal(value, before[name]) for name, value in net.named_buffers())
    assert len(before) > 10


def test_it_takes_the_type_of_what_it_is_moved_to(images: Tensor) -> None:
    net = FeatureNetwork("squeezenet1_1", "random", [0]).double()
    assert net(images.double())["0"].dtype == torch.float64


def test_random_weights_are_always_the_same_and_leave_the_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, other = (dict(FeatureNetwork("squeezenet1_1", "random", [3]).named_buffers()) for _ in range(2))
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_a_file_needs_the_layers_that_are_run_and_no_others(tmp_path: Path, images: Tensor) -> None:
    path = save_features(tmp_path / "features.pth", layers=4, dtype=torch.float16)
    found = FeatureNetwork("squeezenet1_1", path, [3])(images)["3"]
    expected = FeatureNetwork("squeezenet1_1", "random", [3])(images)["3"]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-2)
    whole = save_features(tmp_path / "whole.pth")
    assert torch.equal(FeatureNetwork("squeezenet1_1", whole, [3])(images)["3"], expected)


def test_the_smallest_picture() -> None:
    net = FeatureNetwork("squeezenet1_1", "random", [6])
    net(torch.rand(1, 3, net.smallest, net.smallest))
    with pytest.raises(RuntimeError):
        net(torch.rand(1, 3, net.smallest - 1, 64))


# ---- what it refuses


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("vgg16", None), r"weights is missing: .*Set weights to DEFAULT, .*downloaded once \(http.*path of that file"),
        (("vgg116", "random"), "features is 'vgg116', expected one of .*Did you mean vgg16"),
        (("squeezenet1_1", "DEFUALT"), "weights is 'DEFUALT', which is not a file, expected .*DEFAULT or the path"),
        (("squeezenet1_1", "random", [0, 99, "x"]), r"squeezenet1_1 has no layer 99 and no x\. The layers .* 0, 1, 2,"),
        (("resnet18", "random", ["layer9"]), r"no layer layer9\. .* conv1, bn1, .*layer1\.0, .*inside of them"),
        (("squeezenet1_1", "random", []), "no layer is named. The layers of squeezenet1_1 are 0, 1"),
        (("resnet18", "random", ["flatten"]), "the layer flatten of resnet18 gives no feature maps"),
    ],
)
def test_bad_arguments(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FeatureNetwork(*arguments)


def test_layers_of_vgg_are_listed_by_their_numbers(tmp_path: Path) -> None:
    """Nothing of the network is allocated for that, nor is the file read."""
    (tmp_path / "x.pth").touch()
    with pytest.raises(
        ValueError, match=r"vgg19 has no layer 37\. The layers of vgg19 are 0, 1, .*, 35, 36, avgpool\."
    ):
        FeatureNetwork("vgg19", str(tmp_path / "x.pth"), [37])


def test_a_network_for_one_size(tmp_path: Path) -> None:
    (tmp_path / "x.pth").touch()
    with pytest.raises(ValueError, match="'vit_b_16', which cannot be one: it takes pictures of one size only"):
        FeatureNetwork("vit_b_16", str(tmp_path / "x.pth"), ["encoder"])


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    few = save_features(tmp_path / "few.pth", layers=3)
    with pytest.raises(ValueError, match=r"few\.pth' for squeezenet1_1 lacks 6 of 8 entries: features\.3\.squeeze"):
        FeatureNetwork("squeezenet1_1", few, [3])
    with pytest.raises(
        ValueError, match=r"(?s)few\.pth' for resnet18 lacks .*has 2 that the network has not: features\.0"
    ):
        FeatureNetwork("resnet18", few, ["bn1"])
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(ValueError, match=r"text\.pth cannot be loaded"):
        FeatureNetwork("squeezenet1_1", str(tmp_path / "text.pth"), [3])


@pytest.mark.parametrize(
    ("name", "layers", "wanted"), [("vgg11", [0, 3, 8], [3]), ("resnet18", ["relu", "layer2"], ["relu"])]
)
def test_a_part_runs_no_layer_that_is_not_needed(
    images: Tensor, name: str, layers: list[int | str], wanted: list[int | str]
) -> None:
    whole = FeatureNetwork(name, "random", layers)
    part = whole.part(wanted)
    found, expected = part(images), whole(images)
    assert list(found) == [str(layer) for layer in wanted]
    assert all(torch.equal(found[layer], expected[layer]) for layer in found)
    assert list(expected) == [str(layer) for layer in layers], "the whole stays whole"
    run = sum(isinstance(module, torch.nn.Conv2d) for module in part.modules())
    assert run < sum(isinstance(module, torch.nn.Conv2d) for module in whole.modules())
    shared = {buffer.data_ptr() for buffer in whole.buffers()}
    assert all(buffer.data_ptr() in shared for buffer in part.buffers()), "no second copy of the weights"
    assert part.to(torch.float64)(images.double())[str(wanted[0])].dtype == torch.float64


def test_nothing_is_kept_of_layers_that_are_not_run() -> None:
    net = FeatureNetwork("vgg11", "random", [0])
    assert not [each for each in gc.get_objects() if isinstance(each, torch.nn.Linear) and each.in_features == 25088]
    assert len(net.paths) == 1
