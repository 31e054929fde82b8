import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torchvision.models.resnet import BasicBlock

from leyden_plugins.classification.networks.resnet import Residual, ResNet


def torchvision_twin(net, block_counts, num_classes):
    """torchvision's own ResNet with the weights of `net`, entry by entry in their order."""
    twin = torchvision.models.resnet.ResNet(BasicBlock, block_counts, num_classes=num_classes)
    ours, theirs = net.state_dict(), twin.state_dict()
    assert [v.shape for v in ours.values()] == [v.shape for v in theirs.values()]
    twin.load_state_dict(dict(zip(theirs, ours.values(), strict=True)))
    return twin


def test_stage_shapes_at_96_pixels(shapes_through):
    net = ResNet(1, 10)
    assert shapes_through([net.stem, *net.stages, net.classifier], torch.randn(2, 1, 96, 96)) == [
        (64, 24, 24),
        (64, 24, 24),
        (128, 12, 12),
        (256, 6, 6),
        (512, 3, 3),
        (10,),
    ]


@pytest.mark.parametrize(("name", "counts"), [("ResNet18", [2, 2, 2, 2]), ("ResNet34", [3, 4, 6, 3])])
def test_published_parameter_counts(name, counts):
    published = getattr(torchvision.models, f"{name}_Weights").IMAGENET1K_V1.meta["num_params"]
    with torch.device("meta"):
        ours = sum(p.numel() for p in ResNet(3, 1000, block_counts=counts).parameters())
        grey = sum(p.numel() for p in ResNet(1, 10, block_counts=counts).parameters())
    assert ours == published
    assert grey == published - 2 * 64 * 49 - 990 * 513


@pytest.mark.parametrize("counts", [[2, 2, 2, 2], [1, 2, 1, 1]])
def test_gives_the_logits_and_gradients_of_torchvision(counts):
    net = ResNet(3, 10, block_counts=counts)
    twin = torchvision_twin(net, counts, 10)
    x, labels = torch.randn(4, 3, 64, 64), torch.tensor([1, 2, 3, 4])
    for model in (net, twin):
        F.cross_entropy(model(x), labels).backward()
    for ours, theirs in zip(net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)
    net.eval(), twin.eval()
    torch.testing.assert_close(net(x), twin(x))


def test_small_image_stem_keeps_the_size(shapes_through):
    net = ResNet(3, 10, block_counts=[3, 3, 3], channels=[16, 32, 64], stem="3x3")
    shapes = shapes_through([net.stem, *net.stages], torch.randn(1, 3, 32, 32))
    assert shapes == [(16, 32, 32), (16, 32, 32), (32, 16, 16), (64, 8, 8)]
    # ResNet-20 of the paper has 0.27 million weights; the projections add 2,752.
    assert sum(p.numel() for p in net.parameters()) == 269_722 + 2_752


def test_shortcut_is_projected_only_where_the_shape_changes():
    assert isinstance(Residual(8, 8).shortcut, nn.Identity)
    for block in (Residual(8, 8, stride=2), Residual(8, 16)):
        assert isinstance(block.shortcut[0], nn.Conv2d)


def test_zeroed_residuals_start_as_their_shortcuts():
    net = ResNet(1, 10, block_counts=[2, 1], channels=[4, 8], zero_init_residual=True)
    x = torch.randn(2, 4, 6, 6).relu()
    torch.testing.assert_close(net.stages[0](x), x)
    assert not ResNet(1, 10, block_counts=[1], channels=[4]).stages[0][0].bn2.weight.eq(0).any()


def test_xavier_start_of_every_convolution():
    for name, layer in ResNet(3, 10, block_counts=[1, 1], channels=[32, 64]).named_modules():
        if isinstance(layer, nn.Conv2d):
            area = layer.kernel_size[0] ** 2
            bound = (6 / (area * (layer.in_channels + layer.out_channels))) ** 0.5
            assert layer.weight.abs().max() <= bound, name
            assert layer.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)


def test_dropout_before_the_last_layer():
    assert ResNet(1, 10, [1], [4], dropout=0.25).classifier[2].p == 0.25


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"block_counts": [2, 2]}, "block_counts has 2 entries and channels 4, expected as many"),
        ({"block_counts": [], "channels": []}, r"block_counts is \[\]"),
        ({"channels": [64, 128, 256, 0]}, r"channels is \[64, 128, 256, 0\]"),
        ({"stem": "5x5"}, "stem is '5x5', expected one of 7x7, 3x3"),
        ({"dropout": 1.2}, "dropout is 1.2"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        ResNet(1, 10, **options)
