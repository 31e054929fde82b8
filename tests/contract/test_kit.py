"""The kit refuses what breaks a rule, and says which."""

import pytest
import torch
from torch import Tensor, nn

from leyden.batches import ImageFacts, LabelledImages
from leyden.testing import check_data, check_documented, check_network, check_processes, check_task
from leyden_datamodules.fashion_mnist import FashionMNIST


class Linear(nn.Module):
    """The simplest network.

    Args:
        in_channels: channels.
        num_classes: classes.
    """

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(7)
        self.layer = nn.Linear(49 * in_channels, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.layer(self.pool(images).flatten(1))


class TenClasses(Linear):
    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__(in_channels, 10)


class ColourOnly(Linear):
    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__(3, num_classes)


class UnusedLayer(Linear):
    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__(in_channels, num_classes)
        self.spare = nn.Linear(2, 2)


class Blind(Linear):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(0 * images)


class RandomInEvaluation(Linear):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) + 1e-5 * torch.rand(1)


class ComparesNeighbours(Linear):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images - images.mean(0))


class HiddenWeight(Linear):
    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__(in_channels, num_classes)
        self.scale = 1 + torch.rand(1)

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) * self.scale


class ObjectInWeights(Linear):
    def get_extra_state(self) -> object:
        return Linear

    def set_extra_state(self, state: object) -> None:
        pass


def test_a_good_network_passes():
    check_network(Linear)


@pytest.mark.parametrize(
    ("network", "found"),
    [
        (TenClasses, r"TenClasses\(1, 5\): gives a tensor of shape \(8, 10\) .*, expected \(8, 5\).*num_classes 5"),
        (ColourOnly, r"ColourOnly\(1, 5\) cannot be built and run.*in_channels"),
        (UnusedLayer, "parameter spare.weight of UnusedLayer gets no gradient"),
        (Blind, "loss of Blind is .*, not below"),
        (RandomInEvaluation, "answers twice differently"),
        (ComparesNeighbours, "other logits alone than in a batch"),
        (HiddenWeight, "with the saved weights answers differently"),
        (ObjectInWeights, "saved weights of ObjectInWeights do not load"),
    ],
)
def test_a_network_is_refused(network, found):
    network.__doc__ = Linear.__doc__
    with pytest.raises(AssertionError, match=found):
        check_network(network)


def test_what_the_command_line_could_not_explain_is_refused():
    class Silent:
        pass

    class HalfExplained:
        """A thing.

        Args:
            one: explained.
        """

        def __init__(self, one: int, other: int) -> None: ...

    class Untyped:
        """A thing.

        Args:
            one: explained.
        """

        def __init__(self, one) -> None: ...

    for cls, found in ((Silent, "no docstring"), (HalfExplained, "argument other"), (Untyped, "has no type")):
        with pytest.raises(AssertionError, match=found):
            check_documented(cls)


class Tuples(FashionMNIST):
    def load(self, split):
        source = super().load(split)
        get = type(source).__getitems__
        return type("Source", (type(source),), {"__getitems__": lambda *a: tuple(get(*a))})(*vars(source).values())


class Sorted(FashionMNIST):
    def load(self, split):
        source = super().load(split)
        get = type(source).__getitems__
        cls = type("Source", (type(source),), {"__getitems__": lambda self, indices: get(self, sorted(indices))})
        return cls(*vars(source).values())


class Leaky(FashionMNIST):
    def load(self, split):
        return super().load("train" if split == "val" else split)


class NothingHeldOut(FashionMNIST):
    held_out = False


class Unseeded(FashionMNIST):
    def load(self, split):
        self.seed = int(torch.randint(10**6, ()))
        return super().load(split)


class Bytes(FashionMNIST):
    def transform(self, batch, training):
        return batch


class NoisyTest(FashionMNIST):
    def transform(self, batch, training):
        images, labels = super().transform(batch, training)
        return LabelledImages(images + torch.rand(1), labels)


class Overwriting(FashionMNIST):
    def transform(self, batch, training):
        self._training_data.batch.images.mul_(2)
        return super().transform(batch, training)


class Repeating(FashionMNIST):
    def val_dataloader(self):
        loader = super().val_dataloader()
        rank, processes = loader.sampler.rank, loader.sampler.num_replicas
        sampler = torch.utils.data.DistributedSampler(loader.dataset, processes, rank, shuffle=False)
        options = {"batch_size": loader.batch_size, "collate_fn": loader.collate_fn}
        return torch.utils.data.DataLoader(loader.dataset, sampler=sampler, **options)


class ListsInFacts(FashionMNIST):
    def describe(self):
        facts = super().describe()
        return ImageFacts(facts.channels, facts.image_size, list(facts.class_names))


class FewNames(FashionMNIST):
    def describe(self):
        facts = super().describe()
        return ImageFacts(facts.channels, facts.image_size, facts.class_names[:5])


class Forgiving(FashionMNIST):
    def _read(self, part):
        try:
            return super()._read(part)
        except Exception:
            return LabelledImages(torch.rand(40, 1, 28, 28).mul(255).byte(), torch.arange(40) % 10)


class OsErrors(FashionMNIST):
    def prepare_data(self):
        pass

    def _read(self, part):
        if self._found() is None:
            raise FileNotFoundError("train-images-idx3-ubyte.gz")
        return super()._read(part)


class Backwards(FashionMNIST):
    def load_inputs(self, inputs):
        return super().load_inputs(inputs[::-1])


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (Tuples, "Tuples: the train split gives a tuple, declared is LabelledImages"),
        (Sorted, "is another in a batch than alone"),
        (Leaky, "train and val of Leaky share"),
        (NothingHeldOut, "train and val of NothingHeldOut hold different items"),
        (Unseeded, "split of Unseeded is another at the next start"),
        (Bytes, "gives images torch.uint8"),
        (NoisyTest, "transform of NoisyTest is random in evaluation"),
        (Overwriting, "transform of Overwriting changes the stored data"),
        (Repeating, "some of its 21 twice"),
        (ListsInFacts, "do not survive being written"),
        (FewNames, "gives labels up to"),
        (Forgiving, "gz that is empty says nothing"),
        (OsErrors, "without its files and without a network raises FileNotFoundError"),
        (Backwards, "does not give back its 5 inputs"),
    ],
)
def test_a_data_module_is_refused(data, found, tmp_path, monkeypatch):
    monkeypatch.setattr("leyden_datamodules.fashion_mnist.DEBIAN_FOLDER", tmp_path / "no-package")
    data.__doc__ = "A data set."
    with pytest.raises(AssertionError, match=found):
        check_data(data, tmp_path)


BROKEN_TASKS = '''
import torch
from torchmetrics import MeanMetric
from leyden_plugins.classification.task import ImageClassifier


class NeverLogged(ImageClassifier):
    """Its monitor is no metric of its own."""

    monitor = "val/precision"


class OddName(ImageClassifier):
    """A metric with a name that no curve is drawn for."""

    def build_metrics(self, stage):
        metrics = super().build_metrics(stage)
        metrics.add_metrics({"Accuracy (%)": MeanMetric()})
        return metrics


class Noisy(ImageClassifier):
    """Trains on noise that starts anew with the process."""

    def training_step(self, batch, batch_idx):
        generator = self.__dict__.setdefault("_noise", torch.Generator().manual_seed(0))
        noise = torch.rand(batch.images.shape, generator=generator)
        return super().training_step(batch._replace(images=batch.images + noise), batch_idx)


class Wordless(ImageClassifier):
    """Predicts nothing."""

    def predict(self, batch):
        return [{} for _ in batch.labels]

    def draw(self, picture, record):
        return None


class CountsBatches(ImageClassifier):
    """Its loss depends on how the data is divided."""

    def weight(self, batch):
        return 1
'''


@pytest.fixture
def broken_task(tmp_path, monkeypatch):
    (tmp_path / "broken_tasks.py").write_text(BROKEN_TASKS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    import broken_tasks

    return lambda name: getattr(broken_tasks, name)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("NeverLogged", "val/precision"),
        ("OddName", r"Accuracy \(%\)"),
        ("Noisy", "other weights after one epoch and a resumed one"),
        ("Wordless", "predicts nothing for"),
    ],
)
def test_a_task_is_refused(broken_task, name, found, tmp_path):
    with pytest.raises(AssertionError, match=found):
        check_task(broken_task(name), FashionMNIST, tmp_path, ["--model.net", "LeNet"])


def test_a_task_that_depends_on_the_number_of_processes_is_refused(broken_task, tmp_path):
    with pytest.raises(AssertionError, match=r"validation in two processes gives other metrics.*val/loss"):
        check_processes(broken_task("CountsBatches"), FashionMNIST, tmp_path, ["--model.net", "LeNet"])
