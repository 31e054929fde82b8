"""Every network that is installed keeps the rules of leyden.testing."""

import math

import pytest
import torch
import torch.nn.functional as F

from leyden import plugins
from leyden.networks import dry_run
from leyden.testing import check_documented, check_network, check_trainable
from leyden_plugins.detection.matching import assign

# what makes a large network small, or learning fast enough to see
OPTIONS = {
    "AlexNet": {"hidden_size": 64},
    "DenseNet": {"growth_rate": 8},
    "ImageTransformNet": {"width": 8, "num_blocks": 2},
    "Transformer": {"model_size": 32, "num_heads": 2, "feedforward_size": 64},
    "UNet": {"channels": (8, 16, 32)},
    "VGG": {"width_factor": 0.125, "hidden_size": 64},
}


def check_row_network(network, **options):
    """net(in_features, 1) learns a linear function of rows by heart."""
    check_documented(network)
    features = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    targets = features @ torch.tensor([[0.1], [-0.15], [0.05]])  # what small steps can reach
    below = 0.1 * targets.var(correction=0).item()  # the best constant answer has all of it
    check_trainable(lambda: network(3, 1, **options), [features], lambda out: F.mse_loss(out, targets), below)


def check_sequence_network(network, **options):
    """net(vocab_size) learns by heart which token follows which; each row gets the logits that it gets alone."""
    check_documented(network)
    tokens = torch.randint(0, 12, (4, 9), generator=torch.Generator().manual_seed(0))
    below = 0.7 * math.log(12)  # the best answer that looks at nothing has more

    def loss(found):
        return F.cross_entropy(found[0].flatten(0, 1), tokens[:, 1:].flatten())

    check_trainable(lambda: network(12, **options), [tokens[:, :-1]], loss, below)
    net = network(12, **options).eval()
    torch.testing.assert_close(net(tokens[:1])[0], net(tokens)[0][:1])


def check_pixel_network(network, **options):
    """net(in_channels, num_classes) takes any size, gives each image its own logits, learns pixels by heart."""
    check_documented(network)
    for height, width in ((1, 1), (45, 71)):
        net, images = network(1, 5, **options), torch.randn(2, 1, height, width)
        logits = dry_run(net, images)
        assert logits.shape == (2, 5, height, width)
        torch.testing.assert_close(dry_run(net, images[:1]), logits[:1], rtol=1e-3, atol=1e-4)
    generator = torch.Generator().manual_seed(0)
    fields = F.interpolate(torch.randn(4, 3, 2, 2, generator=generator), size=(64, 64), mode="bilinear")
    images, masks = fields + 0.1 * torch.randn(4, 3, 64, 64, generator=generator), fields.argmax(dim=1)
    shares = masks.flatten().bincount() / masks.numel()
    below = 0.7 * -(shares * shares.log()).sum().item()  # the best answer that looks at nothing has all of it
    check_trainable(lambda: network(3, 3, **options), [images], lambda out: F.cross_entropy(out, masks), below)


def check_detection_network(network, **options):
    """net(in_channels, num_classes) speaks of each anchor of its grid, the same alone; learns boxes by heart."""
    check_documented(network)
    for height, width in ((64, 64), (128, 192)):
        net, images = network(1, 5, **options), torch.randn(2, 1, height, width)
        found = dry_run(net, images)
        count = len(net.anchors.boxes(found.map_sizes, (height, width), images.device))
        assert found.logits.shape == (2, count, 6)
        assert found.offsets.shape == (2, count, 4)
        for alone, both in zip(dry_run(net, images[:1])[:2], found[:2], strict=True):
            torch.testing.assert_close(alone, both[:1], rtol=1e-3, atol=1e-4)
    generator = torch.Generator().manual_seed(0)
    boxes = torch.tensor([[[8.0, 8, 30, 30]], [[30.0, 8, 58, 36]], [[8.0, 32, 34, 58]], [[32.0, 30, 56, 60]]])
    images = 0.1 * torch.randn(4, 3, 64, 64, generator=generator)
    for image, [(left, top, right, bottom)] in zip(images, boxes.int().tolist(), strict=True):
        image[:, top:bottom, left:right] += 1
    targets = []

    def loss(found):
        if not targets:
            anchors = network(3, 1, **options).anchors.boxes(found.map_sizes, (64, 64), images.device)
            targets.append(assign(anchors, boxes, torch.zeros(4, 1, dtype=torch.int64)))
        classes = F.cross_entropy(found.logits.flatten(0, 1), targets[0].classes.flatten(), reduction="none")
        count = (targets[0].classes > 0).sum()
        return (classes.sum() + F.smooth_l1_loss(found.offsets, targets[0].offsets, reduction="sum")) / count

    check_trainable(lambda: network(3, 1, **options), [images], loss, 1.5)


def check_picture_network(network, **options):
    """net(in_channels) learns by heart to paint, at any size; pixels stay in [0, 1], and a picture's are its own."""
    check_documented(network)
    for height, width in ((1, 1), (45, 71)):
        net, images = network(1, **options), torch.rand(2, 1, height, width)
        painted = dry_run(net, images)
        assert painted.shape == images.shape
        assert 0 <= painted.min() <= painted.max() <= 1
        torch.testing.assert_close(dry_run(net, images[:1]), painted[:1], rtol=1e-3, atol=1e-4)
    generator = torch.Generator().manual_seed(0)
    images = F.interpolate(torch.rand(4, 3, 4, 4, generator=generator), size=(32, 32), mode="bilinear")
    negatives = 1 - images
    below = 0.3 * negatives.var(correction=0).item()  # the best constant answer has all of it
    check_trainable(lambda: network(3, **options), [images], lambda out: F.mse_loss(out, negatives), below)


def check_translation_network(network, **options):
    """net(source_symbols, target_symbols) learns pairs by heart; token by token it tells what it tells at once."""
    check_documented(network)
    generator = torch.Generator().manual_seed(0)
    source, targets = (torch.randint(4, 14, (4, size), generator=generator) for size in (6, 5))
    lengths, tokens = torch.tensor([6, 3, 5, 1]), F.pad(targets[:, :-1], (1, 0), value=2)
    below = 0.7 * math.log(10)  # the best answer that looks at nothing has more

    def loss(logits):
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    check_trainable(lambda: network(14, 14, **options), [source, lengths, tokens], loss, below)
    net = network(14, 14, **options).eval()
    logits = dry_run(net, source, lengths, tokens)
    assert logits.shape == (4, 5, 14)
    torch.testing.assert_close(dry_run(net, source[1:2, :3], lengths[1:2], tokens[1:2]), logits[1:2])
    with torch.no_grad():
        memory, state = net.encode(source, lengths)
        for step in range(5):
            found, attention, state = net.step(tokens[:, step], state, memory)
            torch.testing.assert_close(found, logits[:, step])
            if attention is not None:
                torch.testing.assert_close(attention.sum(dim=1), torch.ones(4))
                assert (attention[1, 3:] == 0).all()


# by the family that a network is made for
CHECKS = {
    "classification": check_network,
    "detection": check_detection_network,
    "language_model": check_sequence_network,
    "regression": check_row_network,
    "segmentation": check_pixel_network,
    "style_transfer": check_picture_network,
    "translation": check_translation_network,
}


@pytest.mark.parametrize("plugin", plugins.installed("networks"), ids=lambda plugin: plugin.qualified_name)
def test_network(plugin):
    assert plugin.description()
    family = plugin.class_path.split(".")[1]
    CHECKS[family](plugin.load(), **OPTIONS.get(plugin.name, {}))
