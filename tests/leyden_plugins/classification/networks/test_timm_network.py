import sys

import pytest
import torch

from leyden_plugins.classification.networks.timm_network import Timm

timm = pytest.importorskip("timm")

# timm's own miniatures of its families; the last has two classifiers.
FAMILIES = ["test_resnet", "test_convnext", "test_efficientnet", "test_vit", "deit_tiny_distilled_patch16_224"]


def image_size(name):
    return timm.get_pretrained_cfg(name).input_size[-1]


@pytest.mark.parametrize("name", FAMILIES)
def test_takes_other_channels_and_classes(name):
    size = image_size(name)
    assert Timm(2, 7, name).eval()(torch.randn(1, 2, size, size)).shape == (1, 7)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_weights_from_a_file_give_timm_s_own_logits(tmp_path, name, suffix):
    original = timm.create_model(name).eval()
    path = tmp_path / f"w.{suffix}"
    if suffix == "pth":
        torch.save(original.state_dict(), path)
    else:
        from safetensors.torch import save_file

        save_file(original.state_dict(), path)
    classes, size = original.num_classes, image_size(name)
    x = torch.randn(1, 3, size, size)
    assert torch.equal(Timm(3, classes, name, str(path)).eval()(x), original(x))

    grey = Timm(1, 7, name, str(path)).eval()
    assert grey(x[:, :1]).shape == (1, 7)
    features = original.forward_features(x[:, :1].expand(-1, 3, -1, -1))
    torch.testing.assert_close(grey.network.forward_features(x[:, :1]), features, atol=1e-4, rtol=1e-4)


def test_pretrained_is_asked_of_timm(monkeypatch):
    asked = []

    def create(name, **options):
        asked.append((name, options))
        return torch.nn.Flatten()

    monkeypatch.setattr(timm, "create_model", create)
    Timm(1, 7, "resnet18.a1_in1k", "pretrained")
    assert asked == [("resnet18.a1_in1k", {"pretrained": True, "in_chans": 1, "num_classes": 7})]


def test_failed_download_is_one_clear_error(monkeypatch):
    def offline(*_args, **_kwargs):
        raise FileNotFoundError("cannot reach the Hub")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(
        OSError, match=r"could not get the weights of resnet18 for timm \(cannot reach the Hub\)"
    ) as error:
        Timm(3, 5, "resnet18", "pretrained")
    assert "give its path as weights" in str(error.value)


def test_without_timm(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ImportError, match=r"pip install 'leyden\[timm\]'"):
        Timm(3, 5)


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("resnet81", None, r"name is 'resnet81', expected one of timm\.list_models\(\)\. Did you mean resnet"),
        ("resnet18.nobody", None, r"name is 'resnet18.nobody', .* Did you mean resnet18\."),
        ("hf_hub:someone/something", None, "name is 'hf_hub:someone/something', expected"),
        ("resnet18", "DEFAULT", "weights is 'DEFAULT', which is not a file, expected pretrained or the path"),
        ("test_byobnet_none", None, "name is 'test_byobnet_none'"),
        ("resnet200", "pretrained", "timm has no trained weights for resnet200"),
    ],
)
def test_bad_options(name, weights, message):
    with pytest.raises(ValueError, match=message) as error:
        Timm(3, 10, name, weights)
    assert len(str(error.value)) < 200


def test_a_file_for_another_network(tmp_path):
    torch.save(timm.create_model("test_vit").state_dict(), tmp_path / "w.pth")
    with pytest.raises(ValueError, match="for the network test_resnet of timm lacks") as error:
        Timm(3, 10, "test_resnet", str(tmp_path / "w.pth"))
    assert len(str(error.value).splitlines()) == 2
