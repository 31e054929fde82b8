"""The parser's messages become sentences; what no rule foresees is short. test_cli_errors.py has the real ones."""

from typing import Any

import pytest

from leyden.errors import UsageError, guess, unknown
from leyden.messages import explain, require_matching_batches
from leyden_datamodules.fashion_mnist import FashionMNIST
from leyden_plugins.classification.task import ImageClassifier


class Base:
    def __init__(self, learning_rate: float = 0.1, **kwargs: Any) -> None: ...


class Passing(Base):
    def __init__(self, width: int = 3, **kwargs: Any) -> None: ...


class Closed(Base):
    def __init__(self, width: int = 3) -> None: ...


def not_accepted(cls: type, name: str) -> str:
    path = f"{cls.__module__}.{cls.__qualname__}"
    return str(explain(f"Problem with given class_path '{path}': Option '{name}' is not accepted"))


def test_options_that_a_class_passes_on_to_its_base_are_known() -> None:
    assert not_accepted(Passing, "learning_rat") == (
        "Passing has no option 'learning_rat'. Did you mean learning_rate? Known options: learning_rate, width."
    )
    assert not_accepted(Closed, "learning_rat") == "Closed has no option 'learning_rat'. Known options: width."


def test_a_message_that_no_rule_foresees_is_kept_short() -> None:
    message = str(explain("something new\n" * 1000))
    assert message.startswith("the command line or config does not fit: something new something new")
    assert len(message) < 500
    assert "\n" not in message


@pytest.mark.parametrize(
    ("name", "question"),
    [
        ("lenet", " Did you mean LeNet?"),
        ("LeNt", " Did you mean LeNet?"),
        ("vgg11", " Did you mean VGG?"),
        ("Transformer", ""),
        ("", ""),
    ],
)
def test_guesses_are_made_without_regard_to_case_and_only_when_near(name: str, question: str) -> None:
    assert guess(name, ["LeNet", "VGG", "ResNet"]) == question


def test_unknown_names_all_that_is_known_once_and_sorted() -> None:
    assert str(unknown("network", "X", ["b", "a", "b"])) == "unknown network 'X'. Known network names: a, b"
    assert str(unknown("network", "X", [])) == "unknown network 'X'. Known network names: none"


def test_classes_that_declare_no_batch_fit_everything(toy: Any) -> None:
    require_matching_batches(toy.Task, toy.Data)
    require_matching_batches(Base, toy.Data)
    require_matching_batches(toy.Task, Base)
    require_matching_batches(Base, Base)


def test_classes_of_different_batches_do_not_fit(toy: Any) -> None:
    with pytest.raises(UsageError, match=r"^ImageClassifier reads LabelledImages, PointData gives Points\. Data for"):
        require_matching_batches(ImageClassifier, toy.Data)
    with pytest.raises(UsageError, match=r"Data for Regression: none is installed\.$"):
        require_matching_batches(toy.Task, FashionMNIST)
