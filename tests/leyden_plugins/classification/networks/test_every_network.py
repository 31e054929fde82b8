"""What holds for all networks of the family: how they are built, called, described and configured."""

import copy
import importlib
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from jsonargparse import ArgumentParser

PACKAGE = "leyden_plugins.classification.networks"

# class: module, small options, an image size, the same and other options as a command line
NETWORKS = {
    "SoftmaxRegression": ("softmax_regression", {}, 8, []),
    "MLP": ("mlp", {"hidden_sizes": [9, 7], "activation": "tanh", "dropout": [0.1, 0.0]}, 8, ["--dropout=0.5"]),
    "LeNet": ("lenet", {"activation": "relu", "pooling": "max", "batch_norm": True}, 28, []),
    "AlexNet": ("alexnet", {"hidden_size": 16, "dropout": 0.1}, 67, []),
    "VGG": ("vgg", {"conv_blocks": [(1, 16), (2, 32)], "width_factor": 0.5, "hidden_size": 16, "dropout": 0.1}, 16, []),
    "NiN": ("nin", {"dropout": 0.1}, 67, []),
    "GoogLeNet": ("googlenet", {"dropout": 0.1}, 64, []),
    "ResNet": (
        "resnet",
        {"block_counts": [1, 2], "channels": [8, 16], "stem": "3x3", "dropout": 0.1, "zero_init_residual": False},
        16,
        ["--block_counts=[1,1]", "--channels=[4,8]", "--zero_init_residual=true"],
    ),
    "DenseNet": ("densenet", {"growth_rate": 4, "block_counts": [2, 2], "stem_channels": 8}, 32, []),
    "Torchvision": ("torchvision_network", {"name": "squeezenet1_1", "weights": None}, 64, ["--weights=null"]),
    "Timm": ("timm_network", {"name": "test_resnet", "weights": None}, 32, []),
}


def network_class(name):
    return getattr(importlib.import_module(f"{PACKAGE}.{NETWORKS[name][0]}"), name)


@pytest.fixture(params=NETWORKS)
def case(request):
    _, options, size, _ = NETWORKS[request.param]
    return network_class(request.param), options, size


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_images_become_finite_logits(case, channels):
    cls, options, size = case
    net = cls(channels, 7, **options)
    logits = net(torch.randn(2, channels, size, size))
    assert logits.shape == (2, 7)
    assert logits.dtype == torch.float32
    assert logits.isfinite().all()


def test_every_weight_gets_a_gradient(case):
    cls, options, size = case
    net = cls(3, 5, **options)
    images = torch.randn(4, 3, size, size)
    net(images)
    F.cross_entropy(net(images), torch.tensor([0, 1, 2, 4])).backward()
    # NiN's last ReLU may switch a whole class off, whose weights then get zeros.
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []
    assert any(p.grad.any() for p in net.parameters())


def test_the_image_given_is_not_changed(case):
    cls, options, size = case
    images = torch.randn(2, 3, size, size)
    before = images.clone()
    cls(3, 5, **options)(images)
    assert torch.equal(images, before)


def test_copies_and_reloaded_weights_give_the_same_logits(case):
    cls, options, size = case
    net = cls(1, 3, **options).eval()
    x = torch.randn(2, 1, size, size)
    logits = net(x)
    fresh = cls(1, 3, **options).eval()
    fresh(x)
    fresh.load_state_dict(net.state_dict())
    for twin in (copy.deepcopy(net), fresh):
        assert torch.equal(twin(x), logits)


def test_one_image_in_evaluation(case):
    cls, options, size = case
    net = cls(3, 5, **options).eval()
    batch = torch.randn(2, 3, size, size)
    torch.testing.assert_close(net(batch[:1]), net(batch)[:1], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("channels", "classes", "found"), [(0, 5, "in_channels is 0"), (3, -1, "num_classes is -1")])
def test_impossible_sizes_are_refused(case, channels, classes, found):
    with pytest.raises(ValueError, match=f"{found}, expected a number of at least 1"):
        case[0](channels, classes)


@pytest.mark.parametrize("name", NETWORKS)
def test_options_come_from_a_command_line(name):
    cls, (_, options, _, changes) = network_class(name), NETWORKS[name]
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(cls)
    written = [f"--{key}={'null' if value is None else value}" for key, value in options.items()]
    written = [text.replace("(", "[").replace(")", "]") for text in written]
    parsed = parser.parse_args(["--in_channels=1", "--num_classes=4", *written])
    for key, value in options.items():
        assert parsed[key] == value
    again = parser.parse_string(parser.dump(parsed))
    assert cls(**again) is not None
    assert cls(**parser.parse_args(["--in_channels=1", "--num_classes=4", *written, *changes])) is not None


def test_timm_is_not_imported_with_its_adapter():
    code = f"import sys, {PACKAGE}.timm_network; sys.exit('timm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
