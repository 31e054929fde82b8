import re
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torchvision
from torchvision.models import (
    DenseNet121_Weights,
    GoogLeNet_Weights,
    SqueezeNet1_1_Weights,
    densenet121,
    get_model_weights,
    googlenet,
    list_models,
    squeezenet1_1,
)

from leyden.pretrained import first_conv, last_layer
from leyden_plugins.classification.networks.torchvision_network import Torchvision


def disturb(net):
    """Make the running statistics of batch normalization differ from a new network's."""
    for name, buffer in net.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(std=0.1)
    return net


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """Puts weights where torchvision keeps its downloads, so that none takes place."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)

    def save(weights, state) -> Path:
        path = folder / Path(weights.url).name
        torch.save(state, path)
        return path

    return save


SMALL = sorted(
    name
    for name in list_models(module=torchvision.models)
    if get_model_weights(name)["DEFAULT"].meta["num_params"] < 6e6
)


@pytest.mark.parametrize("name", SMALL)
def test_any_network_takes_other_channels_and_classes(name):
    net = Torchvision(1, 7, name)
    assert net.train()(torch.randn(2, 1, 64, 64)).shape == (2, 7)
    assert net.network.get_submodule(first_conv(net.network)).in_channels == 1


# RegNet computes its widths with tensors, which the meta device cannot do.
WITHOUT_DATA = [name for name in list_models(module=torchvision.models) if not name.startswith("regnet")]


@pytest.mark.parametrize("name", WITHOUT_DATA)
def test_every_network_has_an_rgb_stem_first_and_its_classes_last(name):
    options = {"init_weights": False, "aux_logits": False} if name in ("googlenet", "inception_v3") else {}
    with torch.device("meta"):
        net = torchvision.models.get_model(name, num_classes=7, **options)
    assert net.get_submodule(first_conv(net)).in_channels == 3
    assert net.get_submodule(last_layer(net)).weight.shape[0] == 7


def test_resnet_18_has_torchvision_s_weights_but_for_stem_and_head():
    count = sum(p.numel() for p in Torchvision(1, 10).parameters())
    assert count == 11_689_512 - 2 * 64 * 49 - 990 * 513


def test_random_stem_of_one_channel_keeps_the_scale():
    rgb = Torchvision(3, 2, "resnet18").network.conv1.weight.std()
    grey = Torchvision(1, 2, "resnet18").network.conv1.weight.std()
    assert (grey / rgb).item() == pytest.approx(3**0.5, rel=0.05)


@pytest.mark.parametrize("spelling", ["DEFAULT", "IMAGENET1K_V1", "SqueezeNet1_1_Weights.DEFAULT", "file"])
def test_weights_by_name_or_file_give_torchvision_s_own_logits(cached, spelling):
    path = cached(SqueezeNet1_1_Weights.DEFAULT, squeezenet1_1().state_dict())
    weights = str(path) if spelling == "file" else spelling
    x = torch.randn(2, 3, 64, 64)
    expected = squeezenet1_1(weights="DEFAULT").eval()(x)
    assert torch.equal(Torchvision(3, 1000, "squeezenet1_1", weights).eval()(x), expected)


def test_fine_tuning_start(cached):
    trained = disturb(torchvision.models.resnet18())
    path = cached(torchvision.models.ResNet18_Weights.DEFAULT, trained.state_dict())
    for weights in ("DEFAULT", str(path)):
        net = Torchvision(1, 5, "resnet18", weights).eval()
        assert net.network.fc.weight.shape == (5, 512)
        trained.fc, net.network.fc = torch.nn.Identity(), torch.nn.Identity()
        x = torch.randn(2, 1, 64, 64)
        torch.testing.assert_close(net(x), trained.eval()(x.expand(-1, 3, -1, -1)), atol=1e-4, rtol=1e-4)


def test_own_weights_of_another_run_come_back_whole(tmp_path):
    trained = Torchvision(1, 5, "squeezenet1_1").eval()
    torch.save(trained.network.state_dict(), tmp_path / "w.pth")
    x = torch.randn(2, 1, 64, 64)
    assert torch.equal(Torchvision(1, 5, "squeezenet1_1", str(tmp_path / "w.pth")).eval()(x), trained(x))


def test_names_of_layers_in_old_densenet_files(cached):
    state = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))([12])\.", r"\1.\2.", key): value
        for key, value in disturb(densenet121()).state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    path = cached(DenseNet121_Weights.DEFAULT, state)
    x = torch.randn(1, 3, 64, 64)
    expected = densenet121(weights="DEFAULT").eval()(x)
    assert torch.equal(Torchvision(3, 1000, "densenet121", str(path)).eval()(x), expected)


def test_auxiliary_logits_are_left_out_and_trained_inputs_rescaled(cached):
    path = cached(GoogLeNet_Weights.DEFAULT, disturb(googlenet(init_weights=True)).state_dict())
    x = torch.randn(2, 3, 64, 64)
    expected = googlenet(weights="DEFAULT").eval()(x)
    for weights in ("DEFAULT", str(path)):
        assert torch.equal(Torchvision(3, 1000, "googlenet", weights).eval()(x), expected)
    assert Torchvision(1, 5, "googlenet", str(path)).train()(x[:, :1]).shape == (2, 5)


def test_vision_transformer_takes_the_size_of_its_weights(monkeypatch):
    sizes = []

    def build(name, **options):
        sizes.append(options.get("image_size"))
        raise KeyboardInterrupt

    monkeypatch.setattr(torchvision.models, "get_model", build)
    for weights in (None, "IMAGENET1K_V1", "IMAGENET1K_SWAG_E2E_V1"):
        with pytest.raises(KeyboardInterrupt):
            Torchvision(3, 5, "vit_b_16", weights)
    assert sizes == [None, 224, 384]


def test_failed_download_is_one_clear_error(tmp_path, monkeypatch):
    def offline(*_args, **_kwargs):
        raise URLError("Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", offline)
    with pytest.raises(OSError, match=r"could not get ResNet18_Weights\.IMAGENET1K_V1 from https://") as error:
        Torchvision(3, 5, "resnet18", "DEFAULT")
    assert "Name or service not known" in str(error.value)
    assert "give its path as weights" in str(error.value)


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        (
            "resnet81",
            None,
            r"name is 'resnet81', expected one of torchvision\.models\.list_models\(\)\. Did you mean resn",
        ),
        ("fasterrcnn_resnet50_fpn", None, "name is 'fasterrcnn_resnet50_fpn', expected"),
        ("resnet18", "IMAGENET1K_V9", "expected IMAGENET1K_V1, DEFAULT or the path of a file"),
        ("resnet18", "ResNet50_Weights.DEFAULT", "expected IMAGENET1K_V1, DEFAULT or the path of a file"),
        ("resnet18", "nowhere/w.pth", "'nowhere/w.pth', which is not a file"),
    ],
)
def test_bad_options(name, weights, message):
    with pytest.raises(ValueError, match=message) as error:
        Torchvision(3, 10, name, weights)
    assert len(str(error.value)) < 200


def test_a_file_for_another_network(tmp_path):
    torch.save(squeezenet1_1().state_dict(), tmp_path / "w.pth")
    with pytest.raises(ValueError, match="for the network resnet18 of torchvision lacks") as error:
        Torchvision(3, 10, "resnet18", str(tmp_path / "w.pth"))
    assert len(str(error.value).splitlines()) == 2
