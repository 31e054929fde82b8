import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import resnet18

from leyden_plugins.segmentation.networks.fcn import FCN, bilinear_kernel, bilinear_upsampling


def convolution_matrix(weight, height, width, stride, padding):
    """The matrix by which a convolution multiplies a flattened map, written down entry by entry."""
    outputs, inputs, size, _ = weight.shape
    rows, columns = ((pixels + 2 * padding - size) // stride + 1 for pixels in (height, width))
    matrix = torch.zeros(outputs, rows, columns, inputs, height, width, dtype=weight.dtype)
    places = (range(n) for n in (outputs, rows, columns, inputs, size, size))
    for o, r, c, i, dy, dx in itertools.product(*places):
        y, x = r * stride - padding + dy, c * stride - padding + dx
        if 0 <= y < height and 0 <= x < width:
            matrix[o, r, c, i, y, x] = weight[o, i, dy, dx]
    return matrix.reshape(outputs * rows * columns, inputs * height * width)


@pytest.mark.parametrize(("size", "stride", "padding"), [(4, 2, 1), (3, 1, 1), (8, 4, 2), (2, 2, 0)])
def test_a_transposed_convolution_multiplies_by_the_transposed_matrix(size, stride, padding):
    weight = torch.randn(2, 3, size, size, dtype=torch.float64)  # a convolution of 3 channels into 2, transposed back
    maps = torch.randn(1, 2, 2, 3, dtype=torch.float64)
    height, width = ((pixels - 1) * stride - 2 * padding + size for pixels in (2, 3))
    matrix = convolution_matrix(weight, height, width, stride, padding)
    image = torch.randn(1, 3, height, width, dtype=torch.float64)
    torch.testing.assert_close(matrix @ image.flatten(), F.conv2d(image, weight, None, stride, padding).flatten())
    transposed = F.conv_transpose2d(maps, weight, None, stride, padding)
    torch.testing.assert_close((matrix.T @ maps.flatten()).reshape(1, 3, height, width), transposed)


def test_the_layer_multiplies_by_the_transposed_matrix():
    layer = bilinear_upsampling(2, 2).double()
    nn.init.normal_(layer.weight)
    maps = torch.randn(1, 2, 3, 2, dtype=torch.float64)
    matrix = convolution_matrix(layer.weight.detach(), 6, 4, stride=2, padding=1)
    torch.testing.assert_close(layer(maps).flatten(), matrix.T @ maps.flatten())


@pytest.mark.parametrize("factor", [2, 8, 16, 32])
def test_upsampling_begins_as_bilinear_interpolation_up_to_its_border(factor):
    maps = torch.randn(2, 3, 4, 5)
    found = bilinear_upsampling(3, factor)(maps)
    expected = F.interpolate(maps, scale_factor=factor, mode="bilinear", align_corners=False)
    assert found.shape == expected.shape
    border = slice(factor // 2, -(factor // 2))
    torch.testing.assert_close(found[..., border, border], expected[..., border, border])
    assert (found[..., 0, :] - expected[..., 0, :]).abs().mean() > 0.01  # there it goes towards zero


def test_kernel_in_closed_form():
    assert bilinear_kernel(1, 3)[0, 0].tolist() == [[0.25, 0.5, 0.25], [0.5, 1.0, 0.5], [0.25, 0.5, 0.25]]
    row = [0.25, 0.75, 0.75, 0.25]
    kernel = bilinear_kernel(3, 4)
    assert kernel[1, 1].tolist() == [[a * b for a in row] for b in row]
    assert not kernel[0, 1].any()
    # each pixel between four places gets weights that add up to 1
    torch.testing.assert_close(bilinear_kernel(1, 64).sum().item(), 32.0**2)


def test_the_book_s_network():
    net = FCN(3, 21)
    assert net(torch.randn(1, 3, 320, 480)).shape == (1, 21, 320, 480)
    assert net.trunk(torch.randn(1, 3, 320, 480))[0].shape == (1, 512, 10, 15)
    transposed = net.upsampling
    assert (transposed.kernel_size, transposed.stride, transposed.padding) == ((64, 64), (32, 32), (16, 16))
    resnet = sum(p.numel() for name, p in resnet18().named_parameters() if not name.startswith("fc."))
    count = sum(p.numel() for p in net.parameters())
    assert count == resnet + 21 * (512 + 1) + 21 * 21 * 64 * 64 == 12_993_621


def test_logits_of_stride_32_are_the_book_s():
    """The trunk, a 1 x 1 convolution and bilinear interpolation, by the whole network's own layers."""
    net = FCN(3, 5).eval()
    whole = resnet18().eval()
    whole.load_state_dict(net.trunk.layers.state_dict(), strict=False)
    whole.avgpool = whole.fc = nn.Identity()
    images = torch.randn(2, 3, 96, 128)
    scores = F.conv2d(whole(images).reshape(2, 512, 3, 4), net.score.weight, net.score.bias)
    expected = F.interpolate(scores, scale_factor=32, mode="bilinear", align_corners=False)
    torch.testing.assert_close(net(images)[..., 16:-16, 16:-16], expected[..., 16:-16, 16:-16], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", [(64, 96), (45, 71), (1, 33)])
@pytest.mark.parametrize("stride", [16, 8])
def test_finer_scores_are_added(stride, size):
    """Section 4.2 written out, with the padding that makes odd sizes even, and every layer at random."""
    net = FCN(3, 4, stride=stride).eval()
    for p in (*net.score.parameters(), *net.skip_scores.parameters(), *net.doublings.parameters()):
        nn.init.normal_(p)
    images = torch.randn(1, 3, *size)
    *finer, last = net.trunk(images)
    weights = iter(net.skip_scores.parameters())
    doublings = iter(net.doublings.parameters())
    scores = F.conv2d(last, net.score.weight, net.score.bias)
    for x in finer[::-1]:
        doubled = F.conv_transpose2d(scores, next(doublings), stride=2, padding=1)
        scores = F.conv2d(x, next(weights), next(weights)) + doubled[..., : x.shape[2], : x.shape[3]]
    logits = F.conv_transpose2d(scores, net.upsampling.weight, stride=stride, padding=stride // 2)
    assert net.upsampling.kernel_size == (2 * stride, 2 * stride)
    torch.testing.assert_close(net(images), logits[..., : size[0], : size[1]])
    assert list(weights) == []
    assert list(doublings) == []


@pytest.mark.parametrize("stride", [16, 8])
def test_finer_maps_say_nothing_at_first_and_can_learn_to(stride):
    net = FCN(3, 4, stride=stride)
    assert [layer.in_channels for layer in net.skip_scores] == [256, 128][: len(net.skip_scores)]
    assert not any(p.any() for p in net.skip_scores.parameters())
    net(torch.randn(2, 3, 64, 64)).square().sum().backward()
    assert all(p.grad.any() for p in net.skip_scores.parameters())
    assert all(p.grad.any() for p in net.trunk.layers.layer4.parameters())


def test_score_layer_begins_by_xavier_s_rule():
    weights = FCN(3, 21).score.weight
    bound = (6 / (512 + 21)) ** 0.5
    assert weights.abs().max() <= bound
    assert weights.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)


def test_upsampling_that_is_not_learnt_is_interpolation():
    net = FCN(3, 4, stride=8, learn_upsampling=False).eval()
    learnt = FCN(3, 4, stride=8).eval()
    missing, unexpected = learnt.load_state_dict(net.state_dict(), strict=False)
    assert (missing, unexpected) == (["upsampling.weight"], [])
    images = torch.randn(1, 3, 64, 64)
    found, expected = net(images), learnt(images)
    torch.testing.assert_close(found[..., 4:-4, 4:-4], expected[..., 4:-4, 4:-4])
    assert not torch.equal(found, expected)


def test_head_and_dropout():
    plain, full = FCN(3, 4), FCN(3, 4, head_channels=16, dropout=0.5)
    count = {net: sum(p.numel() for p in net.parameters()) for net in (plain, full)}
    assert count[full] - count[plain] == 512 * 16 * 9 + 2 * 16 + (16 - 512) * 4
    features = torch.rand(1, 512, 4, 4)
    assert plain.head(features) is features or torch.equal(plain.head(features), features)
    dropped = (FCN(3, 4, dropout=0.5).head(features) == 0).float().mean().item()
    assert dropped == pytest.approx(0.5, abs=0.05)


def test_weights_go_into_the_trunk(tmp_path):
    whole = resnet18(num_classes=10)
    torch.save(whole.state_dict(), tmp_path / "w.pth")
    net = FCN(1, 4, weights=str(tmp_path / "w.pth"))
    assert torch.equal(net.trunk.layers.layer4[1].conv2.weight, whole.layer4[1].conv2.weight)
    torch.testing.assert_close(net.trunk.layers.conv1.weight, whole.conv1.weight.sum(1, keepdim=True))
    with pytest.raises(ValueError, match=r"w\.pth' for the trunk resnet34 lacks") as error:
        FCN(3, 4, "resnet34", str(tmp_path / "w.pth"))
    assert len(str(error.value).splitlines()) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stride": 4}, "stride is 4, expected one of 32, 16, 8"),
        ({"head_channels": -1}, "head_channels is -1, expected 0 or more"),
        ({"dropout": 1.5}, "dropout is 1.5, expected a probability"),
        ({"trunk": "resnet81"}, "trunk is 'resnet81', expected one of"),
        ({"weights": "nowhere.pth"}, "'nowhere.pth', which is not a file"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        FCN(3, 4, **options)


def test_one_small_image_cannot_be_trained_on_alone():
    with pytest.raises(ValueError, match="more than 1 value per channel when training"):
        FCN(3, 4)(torch.randn(1, 3, 32, 32))
    FCN(3, 4)(torch.randn(1, 3, 33, 32))
