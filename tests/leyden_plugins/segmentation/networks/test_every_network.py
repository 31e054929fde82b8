"""What holds for all networks of the family: how they are built, called, described and configured."""

import copy
import importlib

import pytest
import torch
import torch.nn.functional as F
from jsonargparse import ArgumentParser

PACKAGE = "leyden_plugins.segmentation.networks"

# class: module, small options
NETWORKS = {
    "FCN": (
        "fcn",
        {"trunk": "resnet18", "weights": None, "stride": 8, "head_channels": 4, "dropout": 0.1}
        | {"learn_upsampling": True},
    ),
    "UNet": ("unet", {"channels": [4, 8, 12], "dropout": 0.1}),
    "TorchvisionSegmentation": ("torchvision_segmentation", {"name": "lraspp_mobilenet_v3_large", "weights": None}),
}


def network_class(name):
    return getattr(importlib.import_module(f"{PACKAGE}.{NETWORKS[name][0]}"), name)


@pytest.fixture(params=NETWORKS)
def case(request):
    return network_class(request.param), NETWORKS[request.param][1]


@pytest.mark.parametrize("size", [(1, 1), (1, 70), (31, 33), (64, 32)])
def test_images_of_any_size_become_finite_logits_of_that_size(case, size):
    cls, options = case
    for channels in (1, 3, 4):
        net = cls(channels, 7, **options).eval()
        logits = net(torch.randn(2, channels, *size))
        assert logits.shape == (2, 7, *size)
        assert logits.dtype == torch.float32
        assert logits.isfinite().all()


def test_every_weight_gets_a_gradient(case):
    cls, options = case
    net = cls(3, 5, **options)
    masks = torch.arange(5).repeat(2, 45, 15)[:, :, :71]
    F.cross_entropy(net(torch.randn(2, 3, 45, 71)), masks).backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []
    assert any(p.grad.any() for p in net.parameters())


def test_the_image_given_is_not_changed(case):
    cls, options = case
    for size in ((45, 71), (64, 64)):
        images = torch.randn(2, 3, *size)
        before = images.clone()
        cls(3, 5, **options)(images)
        assert torch.equal(images, before)


def test_copies_and_reloaded_weights_give_the_same_logits(case):
    cls, options = case
    net, fresh = (cls(1, 3, **options).eval() for _ in range(2))
    fresh.load_state_dict(net.state_dict())
    x = torch.randn(2, 1, 45, 71)
    for twin in (copy.deepcopy(net), fresh):
        assert torch.equal(twin(x), net(x))


def test_channels_last_gives_the_same_logits(case):
    cls, options = case
    net = cls(3, 5, **options).eval()
    images = torch.randn(2, 3, 45, 71)
    expected = net(images)
    net.to(memory_format=torch.channels_last)
    found = net(images.to(memory_format=torch.channels_last))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)


def test_bfloat16_autocast_trains_and_is_close(case):
    cls, options = case
    net = cls(3, 5, **options).to(memory_format=torch.channels_last).eval()
    images = torch.randn(2, 3, 45, 71)
    expected = net(images)
    with torch.autocast("cpu", torch.bfloat16):
        logits = net(images)
    assert logits.dtype == torch.bfloat16
    assert (logits.float() - expected).abs().mean() < 0.1 * expected.std()
    logits.float().square().mean().backward()
    assert all(p.grad.dtype == torch.float32 for p in net.parameters() if p.grad is not None)


def test_compiled_gives_the_same_logits(case):
    cls, options = case
    net = cls(3, 5, **options).eval()
    images = torch.randn(2, 3, 45, 71)
    expected = net(images)
    net.compile(backend="eager", fullgraph=True)
    torch.testing.assert_close(net(images), expected)


@pytest.mark.parametrize(("channels", "classes", "found"), [(0, 5, "in_channels is 0"), (3, -1, "num_classes is -1")])
def test_impossible_sizes_are_refused(case, channels, classes, found):
    with pytest.raises(ValueError, match=f"{found}, expected a number of at least 1"):
        case[0](channels, classes)


@pytest.mark.parametrize("name", NETWORKS)
def test_options_come_from_a_command_line(name):
    cls, options = network_class(name), NETWORKS[name][1]
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(cls)
    written = [f"--{key}={'null' if value is None else value}" for key, value in options.items()]
    parsed = parser.parse_args(["--in_channels=1", "--num_classes=4", *written])
    for key, value in options.items():
        assert parsed[key] == value
    assert cls(**parser.parse_string(parser.dump(parsed))) is not None
