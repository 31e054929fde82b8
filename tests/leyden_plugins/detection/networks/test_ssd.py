"""SSD: its maps, its pyramid against the formula of the paper, its trunk's weights."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import resnet18

from leyden_plugins.detection.networks.ssd import SSD


@pytest.mark.parametrize(
    ("finest_stride", "levels", "expected"),
    [
        (8, 4, ((12, 17), (6, 9), (3, 5), (2, 3))),
        (4, 5, ((23, 33), (12, 17), (6, 9), (3, 5), (2, 3))),
        (16, 4, ((6, 9), (3, 5), (2, 3), (1, 2))),
        (8, 1, ((12, 17),)),
    ],
)
def test_each_map_is_half_as_large_as_the_one_before(finest_stride, levels, expected):
    net = SSD(3, 2, finest_stride=finest_stride, sizes=levels * [[0.5]], ratios=(1.0,), channels=8).eval()
    size = (91, 130)
    logits, _, map_sizes = net(torch.randn(1, 3, *size))
    assert map_sizes == expected
    assert logits.shape[1] == sum(height * width for height, width in expected)
    anchors = net.anchors.boxes(map_sizes, size, torch.device("cpu"))
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    assert (centres > 0).all()
    assert (centres < torch.tensor(size[::-1])).all()


@pytest.mark.parametrize("size", [(1, 1), (8, 300), (33, 31)])
def test_images_of_any_size(size):
    logits, offsets, map_sizes = SSD(3, 2, channels=8).eval()(torch.randn(2, 3, *size))
    assert min(min(each) for each in map_sizes) >= 1
    assert logits.isfinite().all()
    assert offsets.isfinite().all()


@pytest.mark.parametrize("size", [(64, 96), (75, 101)])
def test_outputs_are_those_of_the_pyramid_of_the_paper(size, trained_norms):
    """Feature pyramid networks, section 3: a 1 x 1 convolution of each map, plus the next coarser one, enlarged."""
    net = SSD(3, 2, channels=8, background=None).eval()
    trained_norms(net)
    images = torch.randn(1, 3, *size)

    def convolved(x, layers, **options):
        conv, norm = layers[0], layers[1]
        x = F.conv2d(x, conv.weight, conv.bias, **options)
        return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias)

    lateral = [convolved(x, net.pyramid.inner_blocks[level]) for level, x in enumerate(net.trunk(images))]
    for level in (1, 0):
        lateral[level] = lateral[level] + F.interpolate(
            lateral[level + 1], size=lateral[level].shape[-2:], mode="nearest"
        )
    maps = [convolved(x, net.pyramid.layer_blocks[level], padding=1).relu() for level, x in enumerate(lateral)]
    maps.append(convolved(maps[-1], net.coarser[0], stride=2, padding=1).relu())
    assert all(x.std() > 0.1 for x in maps), "else what follows would see nothing of the image"
    expected = net.heads(maps)
    found = net(images)
    assert found.map_sizes == expected.map_sizes
    torch.testing.assert_close(found.logits, expected.logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.offsets, expected.offsets, rtol=1e-4, atol=1e-4)


def test_trained_weights_go_into_the_trunk(tmp_path):
    whole = resnet18(num_classes=10)
    torch.save(whole.state_dict(), tmp_path / "w.pth")
    net = SSD(1, 4, weights=str(tmp_path / "w.pth"), channels=8)
    assert torch.equal(net.trunk.layers.layer4[1].conv2.weight, whole.layer4[1].conv2.weight)
    torch.testing.assert_close(net.trunk.layers.conv1.weight, whole.conv1.weight.sum(1, keepdim=True))
    with pytest.raises(ValueError, match=r"w\.pth' for the trunk resnet34 lacks") as error:
        SSD(3, 4, "resnet34", str(tmp_path / "w.pth"))
    assert len(str(error.value).splitlines()) == 2


def test_trunks_of_timm():
    pytest.importorskip("timm")
    net = SSD(3, 4, trunk="timm/test_resnet", channels=8).eval()
    assert net(torch.randn(1, 3, 64, 96)).map_sizes == ((8, 12), (4, 6), (2, 3), (1, 2))


def test_the_background_has_its_probability_at_first():
    with torch.no_grad():
        found = SSD(3, 5).eval()(torch.randn(1, 3, 64, 64)).logits.softmax(2)[..., 0]
    assert found.mean().item() == pytest.approx(0.99, abs=0.005)


def test_only_coarser_maps_than_the_trunk_s_are_made():
    strides = {4: (4, 8, 16, 32), 8: (8, 16, 32), 16: (16, 32)}
    for finest, of_trunk in strides.items():
        net = SSD(3, 2, finest_stride=finest, sizes=5 * [[0.5]], channels=4)
        assert net.trunk.strides == of_trunk
        assert len(net.coarser) == 5 - len(of_trunk)
        assert sum(isinstance(layer, nn.Conv2d) for layer in net.coarser.modules()) == 5 - len(of_trunk)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"finest_stride": 2}, "finest_stride is 2, expected one of 4, 8, 16"),
        ({"trunk": "resnet81"}, "trunk is 'resnet81', expected one of"),
        ({"weights": "nowhere.pth"}, "'nowhere.pth', which is not a file"),
        ({"sizes": ()}, r"sizes is \(\), expected numbers above 0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        SSD(3, 4, **options)
