import re

import pytest
import torch

from leyden.metrics import MeanLoss, names_of_classes


@pytest.mark.parametrize("sizes", [[27], [16, 11], [13, 13, 1], [1] * 27])
def test_the_mean_does_not_depend_on_how_items_are_divided_into_batches(sizes):
    losses = torch.linspace(0.1, 9.0, 27)
    mean = MeanLoss()
    for batch in losses.split(sizes):
        mean.update(batch.mean(), len(batch))
    torch.testing.assert_close(mean.compute(), losses.mean())


def test_several_losses_at_once_have_a_weight_each():
    mean = MeanLoss()
    mean.update(torch.tensor([1.0, 4.0], dtype=torch.bfloat16), torch.tensor([3.0, 1.0]))
    mean.update(torch.tensor(2.0), 4)
    assert mean.compute().item() == (3 * 1 + 1 * 4 + 4 * 2) / 8


def test_nan_is_not_hidden_and_reset_forgets_it():
    mean = MeanLoss()
    mean.update(torch.tensor(torch.nan), 3)
    assert mean.compute().isnan()
    mean.reset()
    mean.update(torch.tensor(2.0), 1)
    assert mean.compute() == 2


@pytest.mark.parametrize(
    ("class_names", "expected"),
    [
        (("sky", "potted plant", "TV/monitor"), ["iou_sky", "iou_potted_plant", "iou_tv_monitor"]),
        (("eel", "Eel"), ["iou_eel_0", "iou_eel_1"]),
        (("sky", "汽车"), ["iou_sky_0", "iou_1"]),
    ],
)
def test_class_names_become_metric_names(class_names: tuple[str, ...], expected: list[str]) -> None:
    assert names_of_classes("iou", class_names) == expected


def test_metric_names_are_all_different() -> None:
    names = names_of_classes("iou", ("a 1", "a", "a", "1", "", "A-1", "__"))
    assert len(set(names)) == 7
    assert all(re.fullmatch("[a-z][a-z0-9_]*", name) for name in names)
