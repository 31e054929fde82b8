"""Trained EfficientNet-Lite0 on photographs; the folder is given by LEYDEN_DATA."""

import os
from pathlib import Path

import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from leyden.trunks import Trunk
from leyden_plugins.classification.networks.timm_network import Timm
from leyden_plugins.segmentation.networks.fcn import FCN

pytest.importorskip("timm")
DATA = os.environ.get("LEYDEN_DATA")
NAME = "efficientnet_lite0"

pytestmark = pytest.mark.skipif(DATA is None, reason="LEYDEN_DATA does not name the folder of real data")

# ImageNet's class numbers
PUG, TIGER_CAT = 254, 282


@pytest.fixture
def weights():
    path = Path(DATA) / "weights" / f"{NAME}.pth"
    if not path.is_file():
        pytest.skip(f"LEYDEN_DATA has no weights/{NAME}.pth")
    return str(path)


def photograph(name):
    path = Path(DATA) / "images" / f"{name}.jpg"
    if not path.is_file():
        pytest.skip(f"LEYDEN_DATA has no images/{name}.jpg")
    prepare = v2.Compose(
        [
            v2.Resize(256, interpolation=v2.InterpolationMode.BICUBIC),
            v2.CenterCrop(224),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.5] * 3, [0.5] * 3),
        ]
    )
    return prepare(Image.open(path).convert("RGB"))[None]


@pytest.mark.parametrize(("name", "label", "probability"), [("dog1", PUG, 0.85), ("cat1", TIGER_CAT, 0.43)])
def test_photographs_are_recognized(weights, name, label, probability):
    net = Timm(3, 1000, NAME, weights).eval()
    with torch.no_grad():
        probabilities = net(photograph(name)).softmax(1)[0]
    assert probabilities.argmax() == label
    assert probabilities[label].item() == pytest.approx(probability, abs=0.02)


def test_one_channel_sees_what_three_equal_channels_show(weights):
    grey = photograph("dog1").mean(1, keepdim=True)
    with torch.no_grad():
        one = Timm(1, 1000, NAME, weights).eval()(grey).softmax(1)
        three = Timm(3, 1000, NAME, weights).eval()(grey.expand(-1, 3, -1, -1)).softmax(1)
    torch.testing.assert_close(one, three, atol=1e-4, rtol=1e-3)
    assert one.argmax() == PUG


def test_other_classes_keep_the_trained_features(weights):
    image = photograph("cat1")
    with torch.no_grad():
        ten, thousand = (Timm(3, classes, NAME, weights).eval() for classes in (10, 1000))
        assert ten(image).shape == (1, 10)
        assert torch.equal(ten.network.forward_features(image), thousand.network.forward_features(image))


def test_the_file_does_not_fit_another_network(weights):
    with pytest.raises(ValueError, match=r"lacks .* entries") as error:
        Timm(3, 1000, "efficientnet_b0", weights)
    assert len(str(error.value).splitlines()) == 2


def test_a_trunk_gives_the_network_s_own_feature_maps(weights):
    image = photograph("dog1")
    whole = Timm(3, 1000, NAME, weights).eval().network
    with torch.no_grad():
        *finer, last = Trunk(3, f"timm/{NAME}", weights).eval()(image)
        features = whole.bn2(whole.conv_head(last))
        assert torch.equal(features, whole.forward_features(image))
        assert whole.forward_head(features).argmax() == PUG
    assert [tuple(x.shape[1:]) for x in finer] == [(40, 28, 28), (112, 14, 14)]


def test_a_fully_convolutional_network_on_it(weights):
    net = FCN(3, 11, f"timm/{NAME}", weights, stride=8).eval()
    with torch.no_grad():
        assert net(photograph("dog1")[..., :200, :150]).shape == (1, 11, 200, 150)
    with pytest.raises(ValueError, match=r"for the trunk resnet18 lacks 100 of 100 entries") as error:
        FCN(3, 11, "resnet18", weights)
    assert len(str(error.value).splitlines()) == 2
