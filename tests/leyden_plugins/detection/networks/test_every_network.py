"""What holds for all networks of the family: how they are built, called, described and configured."""

import copy
import importlib

import pytest
import torch
import torch.nn.functional as F
from jsonargparse import ArgumentParser

from leyden_plugins.detection.anchors import AnchorGrid

PACKAGE = "leyden_plugins.detection.networks"
SIZE = (70, 101)

# class: module, small options
NETWORKS = {
    "TinySSD": (
        "tiny_ssd",
        {"base_channels": [4, 6, 8], "channels": 12, "ratios": [1.0, 3.0], "background": 0.9}
        | {"sizes": [[0.1, 0.2], [0.3], [0.4], [0.5, 0.6, 0.7], [0.9]]},
    ),
    "SSD": (
        "ssd",
        {"trunk": "resnet18", "weights": None, "channels": 12, "finest_stride": 16, "ratios": [1.0, 3.0]}
        | {"sizes": [[0.1, 0.2], [0.4], [0.9]], "background": None},
    ),
}


def network_class(name):
    return getattr(importlib.import_module(f"{PACKAGE}.{NETWORKS[name][0]}"), name)


@pytest.fixture(params=NETWORKS)
def case(request):
    return network_class(request.param), NETWORKS[request.param][1]


def close(found, expected, **tolerance):
    torch.testing.assert_close(found.logits, expected.logits, **tolerance)
    torch.testing.assert_close(found.offsets, expected.offsets, **tolerance)
    assert found.map_sizes == expected.map_sizes


@pytest.mark.parametrize("size", [(64, 64), (65, 130), SIZE])
def test_it_speaks_of_each_of_its_anchors(case, size):
    cls, options = case
    for channels in (1, 3, 4):
        net = cls(channels, 7, **options).eval()
        assert isinstance(net.anchors, AnchorGrid)
        with torch.no_grad():
            logits, offsets, map_sizes = net(torch.randn(2, channels, *size))
        count = len(net.anchors.boxes(map_sizes, size, torch.device("cpu")))
        assert logits.shape == (2, count, 8)
        assert offsets.shape == (2, count, 4)
        assert logits.isfinite().all()
        assert offsets.isfinite().all()
        areas = [height * width for height, width in map_sizes]
        assert areas == sorted(areas, reverse=True), "the finest map comes first"


def test_every_weight_gets_a_gradient(case):
    cls, options = case
    net = cls(3, 5, **options)
    logits, offsets, _ = net(torch.randn(2, 3, 128, 128))
    (
        F.cross_entropy(logits.flatten(0, 1), torch.arange(logits[..., 0].numel()) % 6) + offsets.square().mean()
    ).backward()
    trained = {name: p for name, p in net.named_parameters() if p.requires_grad}
    assert [name for name, p in trained.items() if p.grad is None or not p.grad.any()] == []
    assert all(p.grad.isfinite().all() for p in trained.values())


def test_the_image_given_is_not_changed(case):
    cls, options = case
    images = torch.randn(2, 3, *SIZE)
    before = images.clone()
    cls(3, 5, **options)(images)
    assert torch.equal(images, before)


def test_an_image_is_seen_the_same_alone(case):
    cls, options = case
    net, images = cls(3, 5, **options).eval(), torch.randn(3, 3, *SIZE)
    together, alone = net(images), net(images[1:2])
    torch.testing.assert_close(alone.logits, together.logits[1:2], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(alone.offsets, together.offsets[1:2], rtol=1e-4, atol=1e-5)


def test_copies_and_reloaded_weights_say_the_same(case):
    cls, options = case
    net, fresh = (cls(1, 3, **options).eval() for _ in range(2))
    fresh.load_state_dict(net.state_dict())
    x = torch.randn(2, 1, *SIZE)
    for twin in (copy.deepcopy(net), fresh):
        close(twin(x), net(x), rtol=0, atol=0)


def test_channels_last_says_the_same(case):
    cls, options = case
    net = cls(3, 5, **options).eval()
    images = torch.randn(2, 3, *SIZE)
    expected = net(images)
    net.to(memory_format=torch.channels_last)
    close(net(images.to(memory_format=torch.channels_last)), expected, atol=1e-4, rtol=1e-3)


def test_bfloat16_autocast_trains_and_is_close(case):
    cls, options = case
    net = cls(3, 5, **options).to(memory_format=torch.channels_last).eval()
    images = torch.randn(2, 3, *SIZE)
    expected = net(images)
    with torch.autocast("cpu", torch.bfloat16):
        found = net(images)
    assert found.logits.dtype == found.offsets.dtype == torch.bfloat16
    for part, exact in zip(found[:2], expected[:2], strict=True):
        assert (part.float() - exact).abs().mean() < 0.1 * exact.std()
    (found.logits.float().square().mean() + found.offsets.float().square().mean()).backward()
    assert all(p.grad.dtype == torch.float32 for p in net.parameters() if p.grad is not None)


def test_compiled_says_and_learns_the_same(case):
    cls, options = case
    net = cls(3, 5, **options)
    twin = copy.deepcopy(net)
    twin.compile(backend="aot_eager", fullgraph=True)
    images = torch.randn(2, 3, *SIZE)
    found, expected = twin(images), net(images)
    close(found, expected, rtol=1e-4, atol=1e-5)
    for outputs in (found, expected):
        (outputs.logits.square().mean() + outputs.offsets.square().mean()).backward()
    pairs = zip(twin.parameters(), net.parameters(), strict=True)
    for one, other in pairs:
        if other.grad is not None:
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("channels", "classes", "found"), [(0, 5, "in_channels is 0"), (3, -1, "num_classes is -1")])
def test_impossible_sizes_are_refused(case, channels, classes, found):
    with pytest.raises(ValueError, match=f"{found}, expected a number of at least 1"):
        case[0](channels, classes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 0}, "channels is 0, expected a number of at least 1"),
        ({"ratios": ()}, r"ratios is \(\), expected numbers above 0"),
        ({"ratios": (1.0, 0.0)}, r"ratios is \(1.0, 0.0\), expected numbers above 0"),
        ({"sizes": 4 * [[0.5]] + [[]]}, r"sizes is .*, expected numbers above 0"),
        ({"sizes": 4 * [[0.5]] + [[-0.1]]}, r"sizes is .*, expected numbers above 0"),
        ({"background": 0.0}, "background is 0.0, expected a probability above 0 and below 1"),
        ({"background": 1.0}, "background is 1.0, expected a probability above 0 and below 1"),
    ],
)
def test_bad_options(case, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        case[0](3, 4, **options)
    assert len(str(caught.value).splitlines()) == 1


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
