from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torchvision
from torchvision.models import get_model, get_model_weights, list_models

from leyden_plugins.segmentation.networks.torchvision_segmentation import TorchvisionSegmentation

NAMES = list_models(module=torchvision.models.segmentation)
LRASPP = "lraspp_mobilenet_v3_large"
DEEPLAB = "deeplabv3_mobilenet_v3_large"
HEADS = {
    LRASPP: ("classifier.low_classifier", "classifier.high_classifier"),
    DEEPLAB: ("classifier.4",),
    "fcn_resnet50": ("classifier.4",),
}


def whole(name, num_classes=21):
    """torchvision's own network, with the auxiliary classifier that its files have."""
    aux = None if name.startswith("lraspp") else True
    net = get_model(name, num_classes=num_classes, weights_backbone=None, aux_loss=aux)
    for key, buffer in net.named_buffers():
        if key.endswith("running_mean"):
            buffer.normal_(std=0.1)
    return net.eval()


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """Puts weights where torchvision keeps its downloads, so that none takes place."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)

    def save(name, state):
        path = folder / Path(get_model_weights(name)["DEFAULT"].url).name
        torch.save(state, path)
        return path

    return save


@pytest.mark.parametrize("name", NAMES)
def test_every_network_has_its_layers_where_the_adapter_looks(name):
    assert len(NAMES) >= 6
    with torch.device("meta"):
        net = TorchvisionSegmentation(2, 7, name)
    assert net(torch.zeros(2, 2, 40, 50, device="meta")).shape == (2, 7, 40, 50)
    assert not any("aux" in key for key in net.state_dict())


@pytest.mark.parametrize("spelling", ["DEFAULT", "COCO_WITH_VOC_LABELS_V1", "file"])
@pytest.mark.parametrize("name", [LRASPP, DEEPLAB])
def test_weights_by_name_or_file_give_torchvision_s_own_logits(cached, name, spelling):
    original = whole(name)
    path = cached(name, original.state_dict())
    images = torch.randn(2, 3, 45, 71)
    net = TorchvisionSegmentation(3, 21, name, str(path) if spelling == "file" else spelling).eval()
    assert torch.equal(net(images), original(images)["out"])


def test_weights_by_the_name_of_their_class(cached):
    cached(LRASPP, whole(LRASPP).state_dict())
    TorchvisionSegmentation(3, 21, LRASPP, "LRASPP_MobileNet_V3_Large_Weights.DEFAULT")


@pytest.mark.parametrize("name", HEADS)
def test_other_channels_and_classes_keep_all_but_stem_and_head(cached, name):
    original = whole(name)
    cached(name, original.state_dict())
    net = TorchvisionSegmentation(1, 5, name, "DEFAULT").eval()
    state, trained = net.network.state_dict(), original.state_dict()
    new = {f"{head}.{part}" for head in HEADS[name] for part in ("weight", "bias")}
    changed = {key for key, value in state.items() if not torch.equal(value, trained[key])}
    (stem,) = changed - new
    assert new <= changed
    torch.testing.assert_close(state[stem], trained[stem].sum(1, keepdim=True))
    assert net(torch.randn(1, 1, 40, 50)).shape == (1, 5, 40, 50)


def test_own_weights_of_another_run_come_back_whole(tmp_path):
    trained = TorchvisionSegmentation(1, 5).eval()
    torch.save(trained.network.state_dict(), tmp_path / "w.pth")
    images = torch.randn(2, 1, 40, 50)
    assert torch.equal(TorchvisionSegmentation(1, 5, LRASPP, str(tmp_path / "w.pth")).eval()(images), trained(images))


def test_no_weights_are_asked_for_without_weights(monkeypatch):
    def offline(*_args, **_kwargs):
        raise AssertionError("a download was tried")

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", offline)
    monkeypatch.setattr("torch.hub.urlopen", offline)
    for name in (LRASPP, DEEPLAB):
        TorchvisionSegmentation(3, 21, name)


def test_failed_download_is_one_clear_error(tmp_path, monkeypatch):
    def offline(*_args, **_kwargs):
        raise URLError("Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", offline)
    with pytest.raises(OSError, match=r"could not get LRASPP_\S+ from https://.*give its path as weights"):
        TorchvisionSegmentation(3, 5, LRASPP, "DEFAULT")


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("deeplabv3_resnet18", None, "name is 'deeplabv3_resnet18', expected one of .*Did you mean deeplabv3_r"),
        ("resnet18", None, "name is 'resnet18', expected one of deeplabv3_mobilenet_v3_large, "),
        (LRASPP, "IMAGENET1K_V1", "expected COCO_WITH_VOC_LABELS_V1, DEFAULT or the path of a file"),
        (LRASPP, "nowhere/w.pth", "'nowhere/w.pth', which is not a file"),
    ],
)
def test_bad_options(name, weights, message):
    with pytest.raises(ValueError, match=message):
        TorchvisionSegmentation(3, 10, name, weights)


def test_a_file_for_another_network(tmp_path):
    torch.save(whole(LRASPP).state_dict(), tmp_path / "w.pth")
    with pytest.raises(ValueError, match=f"for the network {DEEPLAB} of torchvision lacks") as error:
        TorchvisionSegmentation(3, 21, DEEPLAB, str(tmp_path / "w.pth"))
    assert len(str(error.value).splitlines()) == 2


@pytest.mark.parametrize(("name", "side"), [(DEEPLAB, 64), (LRASPP, 16), ("fcn_resnet50", 8)])
def test_what_batch_norm_cannot_train_on(name, side):
    with pytest.raises(ValueError, match="more than 1 value per channel when training"):
        TorchvisionSegmentation(3, 5, name)(torch.randn(1, 3, side, side))
    TorchvisionSegmentation(3, 5, name)(torch.randn(2, 3, side, side))
