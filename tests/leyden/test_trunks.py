import copy
import socket
import sys
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models import ResNet18_Weights, resnet18

from leyden.trunks import Trunk, pad_to_multiple

timm = pytest.importorskip("timm")

# timm's own miniatures; the second has its layers taken out of their containers and rounds sizes down.
FAMILIES = ["resnet18", "timm/test_resnet", "timm/test_convnext", "timm/test_efficientnet"]


@pytest.fixture(autouse=True)
def _same_numbers_each_time():
    torch.manual_seed(0)


def classifier(trunk):
    """The whole network, with random statistics in its batch norms."""
    net = timm.create_model(trunk.removeprefix("timm/")) if trunk.startswith("timm/") else resnet18()
    for name, buffer in net.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(std=0.1)
    return net.eval()


def saved(net, path):
    if path.suffix == ".safetensors":
        from safetensors.torch import save_file

        save_file(net.state_dict(), path)
    else:
        torch.save(net.state_dict(), path)
    return str(path)


def own_maps(net, images):
    """Maps of stride 8, 16 and 32 by the classifier's own layers, as its authors write them down."""
    if isinstance(net, torchvision.models.ResNet):
        x = net.layer1(net.maxpool(net.relu(net.bn1(net.conv1(images)))))
        maps = [net.layer2(x)]
        maps.append(net.layer3(maps[-1]))
        return [*maps, net.layer4(maps[-1])]
    return net.forward_intermediates(images, intermediates_only=True)[-3:]


@pytest.mark.parametrize("trunk", FAMILIES)
@pytest.mark.parametrize("size", [(1, 1), (33, 70), (64, 96)])
def test_maps_have_the_size_that_their_stride_says_rounded_up(trunk, size):
    net = Trunk(2, trunk).eval()
    maps = net(torch.randn(2, 2, *size))
    expected = [
        (2, channels, *(-(-pixels // stride) for pixels in size))
        for channels, stride in zip(net.channels, (8, 16, 32), strict=True)
    ]
    assert [tuple(x.shape) for x in maps] == expected


RESNETS = [name for name in torchvision.models.list_models(module=torchvision.models) if "resne" in name]


@pytest.mark.parametrize("name", RESNETS)
def test_every_resnet_of_torchvision_has_its_maps(name):
    assert len(RESNETS) >= 10
    with torch.device("meta"):
        net = Trunk(3, name, strides=(2, 4, 8, 16, 32))
    last = 512 if name in ("resnet18", "resnet34") else 2048
    assert net.channels == (64, last // 8, last // 4, last // 2, last)


@pytest.mark.parametrize("trunk", FAMILIES)
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_classifier_s_file_gives_the_classifier_s_own_maps(tmp_path, trunk, suffix):
    whole = classifier(trunk)
    path = saved(whole, tmp_path / f"w.{suffix}")
    images = torch.randn(2, 3, 64, 96)
    maps = Trunk(3, trunk, path).eval()(images)
    for found, expected in zip(maps, own_maps(whole, images), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("trunk", FAMILIES)
def test_one_channel_gives_what_three_equal_ones_give(tmp_path, trunk):
    whole = classifier(trunk)
    grey = torch.randn(1, 1, 64, 64)
    maps = Trunk(1, trunk, saved(whole, tmp_path / "w.pth")).eval()(grey)
    for found, expected in zip(maps, own_maps(whole, grey.expand(-1, 3, -1, -1)), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("trunk", FAMILIES)
def test_the_classifier_may_be_of_other_classes_or_absent(tmp_path, trunk):
    whole = classifier(trunk)
    head = next(name for name in ("fc", "classifier", "head.fc") if f"{name}.weight" in whole.state_dict())
    state = whole.state_dict()
    images = torch.randn(1, 3, 32, 32)
    expected = own_maps(whole, images)
    for rows in (7, 0):
        for part in ("weight", "bias"):
            state[f"{head}.{part}"] = torch.zeros(rows, *state[f"{head}.{part}"].shape[1:])
        if rows == 0:
            del state[f"{head}.weight"], state[f"{head}.bias"]
        torch.save(state, tmp_path / "w.pth")
        maps = Trunk(3, trunk, str(tmp_path / "w.pth")).eval()(images)
        assert all(map(torch.equal, maps, expected))


@pytest.mark.parametrize("trunk", FAMILIES)
def test_weights_of_another_trunk_are_refused_in_two_lines(tmp_path, trunk):
    other = FAMILIES[FAMILIES.index(trunk) - 1]
    path = saved(classifier(other), tmp_path / "w.pth")
    with pytest.raises(ValueError, match=rf"w\.pth' for the trunk {trunk} lacks") as error:
        Trunk(3, trunk, path)
    lacking, surplus = str(error.value).splitlines()
    assert lacking.endswith(" more;")
    assert "that the network has not" in surplus


def test_a_file_that_lacks_one_layer_or_has_one_too_many(tmp_path):
    state = classifier("resnet18").state_dict()
    state["layer5.weight"] = state.pop("layer2.0.conv1.weight")
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"lacks 1 of 100 entries: layer2\.0\.conv1\.weight") as error:
        Trunk(3, "resnet18", str(tmp_path / "w.pth"))
    assert "it has 1 that the network has not: layer5.weight" in str(error.value)


def test_names_of_layers_are_torchvision_s():
    names = {name.removeprefix("layers.") for name in Trunk(3).state_dict()}
    assert names == {name for name in resnet18().state_dict() if not name.startswith("fc.")}


@pytest.mark.parametrize("trunk", FAMILIES)
@pytest.mark.parametrize("strides", [(8,), (4, 16), (8, 16, 32)])
def test_what_is_trained_gets_a_gradient(trunk, strides):
    net = Trunk(3, trunk, strides=strides)
    assert net.training
    sum(x.square().sum() for x in net(torch.randn(2, 3, 64, 64))).backward()
    trained = [parameter for parameter in net.parameters() if parameter.requires_grad]
    assert trained
    assert all(parameter.grad is not None for parameter in trained)
    if strides[-1] == 32:
        assert len(trained) == len(list(net.parameters()))


@pytest.mark.parametrize("trunk", ["resnet18", "timm/test_efficientnet"])
def test_maps_of_some_strides_are_those_of_all(trunk, tmp_path):
    path = saved(classifier(trunk), tmp_path / "w.pth")
    images = torch.randn(1, 3, 64, 64)
    _, eight, sixteen, _ = Trunk(3, trunk, path, strides=(4, 8, 16, 32)).eval()(images)
    found = Trunk(3, trunk, path, strides=(8, 16)).eval()(images)
    assert torch.equal(found[0], eight)
    assert torch.equal(found[1], sixteen)


@pytest.mark.parametrize("trunk", FAMILIES)
def test_building_leaves_statistics_as_they_begin(trunk):
    for layer in Trunk(3, trunk).modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.num_batches_tracked == 0
            assert not layer.running_mean.any()


@pytest.mark.parametrize("trunk", FAMILIES)
def test_builds_where_gradients_are_off(trunk):
    with torch.no_grad():
        net = Trunk(3, trunk, strides=(4, 8))
    names = {name for name, parameter in net.named_parameters() if parameter.requires_grad}
    assert names == {name for name, p in Trunk(3, trunk, strides=(4, 8)).named_parameters() if p.requires_grad}
    with torch.inference_mode():
        assert Trunk(3, trunk)(torch.zeros(2, 3, 64, 64))[0].shape[2:] == (8, 8)


def test_builds_without_a_network_connection(monkeypatch):
    def offline(*_args, **_kwargs):
        raise OSError("no network")

    monkeypatch.setattr(socket, "getaddrinfo", offline)
    monkeypatch.setattr(socket.socket, "connect", offline)
    for trunk in FAMILIES:
        Trunk(3, trunk)


@pytest.mark.parametrize("weights", ["DEFAULT", "IMAGENET1K_V1", "ResNet18_Weights.DEFAULT"])
def test_torchvision_s_weights_by_name(tmp_path, monkeypatch, weights):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    whole = classifier("resnet18")
    saved(whole, folder / Path(ResNet18_Weights.DEFAULT.url).name)
    images = torch.randn(1, 3, 32, 32)
    assert all(map(torch.equal, Trunk(3, "resnet18", weights).eval()(images), own_maps(whole, images)))


def test_pretrained_is_asked_of_timm(monkeypatch):
    asked = []
    create = timm.create_model

    def record(name, **options):
        asked.append((name, options["pretrained"], options.get("in_chans"), options.get("out_indices")))
        return create(name, **{**options, "pretrained": False})

    monkeypatch.setattr(timm, "create_model", record)
    Trunk(1, "timm/test_resnet.r160_in1k", "pretrained", strides=(8, 32))
    assert asked[-1] == ("test_resnet.r160_in1k", True, 1, (2, 4))
    assert [pretrained for _, pretrained, *_ in asked].count(True) == 1


def test_failed_downloads_are_one_clear_error(tmp_path, monkeypatch):
    def offline(*_args, **_kwargs):
        raise URLError("Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", offline)
    with pytest.raises(OSError, match=r"could not get ResNet18_Weights\.IMAGENET1K_V1 from https://.*give its path"):
        Trunk(3, "resnet18", "DEFAULT")


def test_without_timm(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ImportError, match=r"pip install 'leyden\[timm\]'"):
        Trunk(3, "timm/resnet18")
    assert Trunk(3, "resnet18").channels == (128, 256, 512)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"trunk": "resnet81"}, r"trunk is 'resnet81', expected one of .*resnet18, .* or timm/NAME\. Did you mean re"),
        ({"trunk": "vgg11"}, r"trunk is 'vgg11', expected one of resnet"),
        ({"trunk": "timm/resnet81"}, r"NAME in trunk timm/NAME is 'resnet81', expected one of timm\.list_models\(\)"),
        ({"trunk": "timm/test_vit"}, r"'timm/test_vit', which has no feature maps of stride 8, 32, only of 16\."),
        ({"trunk": "timm/mambaout_femto"}, r"cannot be one: of 64x96 images it makes maps of \[\(12, 96\), "),
        (
            {"trunk": "timm/convit_tiny", "strides": [16]},
            "'timm/convit_tiny', which cannot be one: it takes no 32x48 im",
        ),
        ({"weights": "IMAGENET1K_V9"}, "expected IMAGENET1K_V1, DEFAULT or the path of a file"),
        ({"weights": "ResNet50_Weights.DEFAULT"}, "expected IMAGENET1K_V1, DEFAULT or the path of a file"),
        ({"trunk": "timm/test_resnet", "weights": "DEFAULT"}, "expected pretrained or the path of a file"),
        ({"trunk": "timm/resnet200", "weights": "pretrained"}, "timm has no trained weights for resnet200"),
        ({"strides": (8, 64)}, "'resnet18', which has no feature maps of stride 64, only of 2, 4, 8, 16, 32"),
        ({"strides": (16, 8)}, r"strides is \[16, 8\], expected ascending numbers"),
        ({"strides": (8, 8)}, r"strides is \[8, 8\], expected ascending numbers"),
        ({"strides": ()}, r"strides is \(\), expected one or more"),
        ({"in_channels": 0}, "in_channels is 0, expected a number of at least 1"),
    ],
)
def test_bad_options(arguments, message):
    with pytest.raises(ValueError, match=message):
        Trunk(**{"in_channels": 3, **arguments})


def test_copies_and_reloaded_weights_give_the_same_maps():
    net, fresh = Trunk(3).eval(), Trunk(3).eval()
    fresh.load_state_dict(net.state_dict())
    images = torch.randn(1, 3, 40, 40)
    for twin in (copy.deepcopy(net), fresh):
        assert all(map(torch.equal, twin(images), net(images)))


def test_padding_is_zeros_on_the_right_and_below():
    images = torch.randn(2, 3, 5, 8)
    padded = pad_to_multiple(images, 4)
    assert padded.shape == (2, 3, 8, 8)
    assert torch.equal(padded[..., :5, :], images)
    assert not padded[..., 5:, :].any()
    assert pad_to_multiple(padded, 4) is padded
