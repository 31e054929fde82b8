import copy

import pytest
import torch
from torch import nn

from leyden.pretrained import (
    adapt_kernels,
    first_conv,
    last_layer,
    load_weights,
    read_state_dict,
    unknown_network,
    weights_file,
)


def small_network(channels=3, classes=5):
    features = nn.Sequential(nn.Conv2d(channels, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.ModuleDict({"features": features, "head": nn.Linear(4, classes)})


def load(net, state):
    load_weights(net, state, stem=["features.0"], head=["head"], source="FILE")


def copied_state(net):
    return copy.deepcopy(net.state_dict())


def test_finds_first_convolution_and_last_layer():
    assert first_conv(small_network()) == "features.0"
    assert last_layer(small_network()) == "head"
    assert last_layer(nn.Sequential(nn.Linear(1, 2), nn.Conv2d(2, 3, 1), nn.ReLU())) == "1"


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 6, 7])
def test_equal_channels_give_the_same_response_as_three(channels):
    kernels, image = torch.randn(4, 3, 3, 3), torch.randn(2, 1, 8, 8)
    adapted = adapt_kernels(kernels, channels)
    assert adapted.shape == (4, channels, 3, 3)
    three = nn.functional.conv2d(image.expand(-1, 3, -1, -1), kernels)
    if channels in (1, 3, 6):
        torch.testing.assert_close(nn.functional.conv2d(image.expand(-1, channels, -1, -1), adapted), three)
    if channels == 4:
        torch.testing.assert_close(adapted[:, 3], kernels[:, 0] * 3 / 4)


def test_same_channels_and_classes_load_everything():
    net, other = small_network(), small_network()
    load(net, copied_state(other))
    for ours, theirs in zip(net.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)


def test_head_of_other_classes_stays_and_kernels_are_summed():
    net, other = small_network(channels=1, classes=2), small_network()
    head = net["head"].weight.detach().clone()
    load(net, copied_state(other))
    assert torch.equal(net["head"].weight, head)
    torch.testing.assert_close(net["features"][0].weight, other["features"][0].weight.sum(1, keepdim=True))
    assert torch.equal(net["features"][0].bias, other["features"][0].bias)


def test_kernels_of_as_many_channels_are_not_adapted():
    net, other = small_network(channels=1), small_network(channels=1)
    load(net, copied_state(other))
    assert torch.equal(net["features"][0].weight, other["features"][0].weight)


def test_counts_of_batches_may_be_absent():
    state = copied_state(small_network())
    del state["features.1.num_batches_tracked"]
    load(small_network(), state)


def test_what_does_not_fit_is_named_in_two_lines_and_nothing_is_loaded():
    net = small_network()
    before = copied_state(net)
    state = {f"module.{key}": value for key, value in small_network().state_dict().items()}
    with pytest.raises(ValueError, match="FILE lacks 8 of 8 entries") as error:
        load(net, state)
    first, second = str(error.value).splitlines()
    assert first.endswith("features.0.weight (4, 3, 3, 3), features.0.bias (4,), features.1.weight (4,), and 5 more;")
    assert "it has 8 that the network has not: module.features.0.weight" in second
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


@pytest.mark.parametrize(
    ("entry", "shape"),
    [("head.weight", (5, 9)), ("features.0.weight", (4, 2, 3, 3)), ("features.0.weight", (4, 3, 5, 5))],
)
def test_other_shapes_do_not_fit(entry, shape):
    state = copied_state(small_network(channels=1))
    state[entry] = torch.zeros(shape)
    with pytest.raises(ValueError, match="lacks 1 of 8 entries") as error:
        load(small_network(channels=1), state)
    assert f"{entry} {shape}" in str(error.value).splitlines()[1]


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s, "epoch": 3}, lambda s: {"model": s}])
def test_reads_state_dicts_also_inside_checkpoints(tmp_path, wrap):
    state = small_network().state_dict()
    torch.save(wrap(state), tmp_path / "w.pth")
    assert read_state_dict(tmp_path / "w.pth").keys() == state.keys()


def test_reads_safetensors(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    state = dict(small_network().state_dict())
    safetensors.save_file(state, tmp_path / "w.safetensors")
    found = read_state_dict(tmp_path / "w.safetensors")
    assert all(torch.equal(found[key], value) for key, value in state.items())
    (tmp_path / "bad.safetensors").write_bytes(b"no such thing")
    with pytest.raises(ValueError, match="expected a safetensors file"):
        read_state_dict(tmp_path / "bad.safetensors")


class Mischief:
    def __reduce__(self):
        return exec, ("raise SystemExit('code in a weights file was run')",)


@pytest.mark.parametrize("content", ["text", "empty", "truncated", "code"])
def test_files_that_are_no_state_dict(tmp_path, content):
    path = tmp_path / "w.pth"
    torch.save({"a": Mischief() if content == "code" else torch.zeros(1000)}, path)
    whole = path.read_bytes()
    path.write_bytes({"text": b"not weights", "empty": b"", "truncated": whole[:2000], "code": whole}[content])
    with pytest.raises(ValueError, match=r"w\.pth cannot be loaded \(\w+\), expected the file of a state dict"):
        read_state_dict(path)


@pytest.mark.parametrize("content", [[1, 2], {"a": 1}, torch.zeros(3)])
def test_files_that_hold_something_else(tmp_path, content):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(ValueError, match="holds no state dict, expected names with a tensor each"):
        read_state_dict(tmp_path / "w.pth")


def test_no_such_file_names_the_alternatives(tmp_path):
    with pytest.raises(ValueError, match="is not a file, expected DEFAULT or the path of a file"):
        weights_file(str(tmp_path / "none.pth"), ["DEFAULT"])


def test_home_directory_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "w.pth").touch()
    assert weights_file("~/w.pth", []) == tmp_path / "w.pth"


def test_unknown_names_are_answered_by_near_ones():
    assert str(unknown_network("resnet81", ["resnet18", "vgg11"], "f()")) == (
        "name is 'resnet81', expected one of f(). Did you mean resnet18?"
    )
    assert str(unknown_network("xyz", ["resnet18"], "f()")) == "name is 'xyz', expected one of f()."
