"""Every task that is installed keeps the rules of leyden.testing."""

import shutil

import pytest

from leyden import plugins
from leyden.testing import check_compiled, check_killed, check_processes, check_task

# a frozen network for the losses of style transfer: small, and not trained
PERCEPTION = ["--model.features=squeezenet1_1", "--model.weights=random"]
PERCEPTION += ["--model.style_layers=[0,3]", "--model.content_layers=[4]"]
SMALL_STEPS = ["--trainer.gradient_clip_val=0.1"]

# task: the data it is tried on, and the options of `fit`; batch norm, since it finds mistakes with several processes
CASES = {
    "Detector": ("VOCDetection", ["--model.net", "TinySSD", "--model.net.channels", "16"]),
    "FastStyleTransfer": (
        "StyleImages",
        # without small steps a random frozen network makes much of the rounding of other sums
        [*PERCEPTION, "--model.net=ImageTransformNet", "--model.net.width=4", "--model.net.num_blocks=1", *SMALL_STEPS],
    ),
    "ImageClassifier": ("FashionMNIST", ["--model.net", "LeNet", "--model.net.batch_norm", "true"]),
    "LanguageModel": ("TextFile", ["--model.net", "LSTM", "--model.net.hidden_size", "32"]),
    "Regressor": ("TabularCSV", ["--model.net", "MLP"]),
    "Segmenter": ("VOCSegmentation", ["--model.net", "UNet", "--model.net.channels", "[4,8]"]),
    "Translator": (
        "EnglishFrench",
        ["--model.net=Seq2Seq", "--model.net.attention=dot", "--model.net.hidden_size=24", "--model.net.dropout=0"],
    ),
    "StyleTransfer": ("StylePair", [*PERCEPTION, "--model.optimizer", "Adam", "--model.optimizer.lr", "0.1"]),
}
# what draws random numbers at every step: a resumed training draws the same ones
RANDOM = {
    "Detector": ["--data.flip=true"],
    "LanguageModel": ["--model.net.dropout=0.3", "--model.net.num_layers=2"],
    "Regressor": ["--model.net.dropout=0.3"],
    "Translator": ["--model.net.dropout=0.3", "--model.scheduled_sampling=0.5"],
}


@pytest.fixture(params=plugins.installed("tasks"), ids=lambda plugin: plugin.qualified_name)
def case(request, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plugin = request.param
    assert plugin.description()
    assert plugin.name in CASES, f"add {plugin.name} to the table in {__file__}"
    data, options = CASES[plugin.name]
    return plugin.load(), plugins.find("data", data).load(), tmp_path, options


def test_one_process(case):
    check_task(*case)


def test_processes(case):
    check_processes(*case)


def test_killed(case, request):
    *rest, options = case
    name = request.node.callspec.params["case"].name
    check_killed(*rest, [*options, *RANDOM.get(name, [])])


def test_compiled(case):
    check_compiled(*case)


@pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="Inductor needs a C++ compiler")
def test_compiled_by_inductor(case):
    check_compiled(*case, backend="inductor")
