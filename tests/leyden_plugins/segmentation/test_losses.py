"""The losses of segmentation against scikit-learn and sums written out in float64."""

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss
from torch import Tensor

from leyden.batches import VOID
from leyden_plugins.segmentation.losses import dice_loss, summed_cross_entropy


@pytest.fixture
def scene() -> tuple[Tensor, Tensor]:
    """Logits (3, 5, 6, 7) and masks: class 4 is nowhere, the last image has class 0 alone, a tenth is void."""
    generator = torch.Generator().manual_seed(0)
    masks = torch.randint(0, 4, (3, 6, 7), generator=generator).to(torch.uint8)
    masks[2] = 0
    masks[torch.rand(masks.shape, generator=generator) < 0.1] = VOID
    return 2 * torch.randn(3, 5, 6, 7, generator=generator), masks


def pixels_of(logits: Tensor, masks: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (P, K) and classes (P,) of the labelled pixels, in float64."""
    labelled = masks != VOID
    return logits.double().softmax(1).movedim(1, -1)[labelled].numpy(), masks[labelled].numpy()


def test_cross_entropy_is_summed_over_the_labelled_pixels(scene: tuple[Tensor, Tensor]) -> None:
    probabilities, classes = pixels_of(*scene)
    expected = log_loss(classes, probabilities, labels=range(5), normalize=False)
    assert summed_cross_entropy(*scene).item() == pytest.approx(expected, rel=1e-5)


def test_a_pixel_counts_as_its_true_class_does(scene: tuple[Tensor, Tensor]) -> None:
    weights = torch.tensor([0.5, 2.0, 0.0, 1.0, 7.0])
    probabilities, classes = pixels_of(*scene)
    each = weights.double().numpy()[classes]
    expected = log_loss(classes, probabilities, labels=range(5), normalize=False, sample_weight=each)
    assert summed_cross_entropy(*scene, weights).item() == pytest.approx(expected, rel=1e-5)


def test_dice_is_the_formula_of_the_paper_for_each_class_that_is_there(scene: tuple[Tensor, Tensor]) -> None:
    logits, masks = scene
    found = dice_loss(logits, masks)
    assert found.shape == (3,)
    for image in range(3):
        probabilities, classes = pixels_of(logits[image : image + 1], masks[image : image + 1])
        coefficients = []
        for present in np.unique(classes):
            p, g = probabilities[:, present], (classes == present).astype(float)
            coefficients.append(2 * (p * g).sum() / ((p**2).sum() + (g**2).sum()))
        assert found[image].item() == pytest.approx(1 - np.mean(coefficients), rel=1e-5)


def test_dice_is_0_for_a_perfect_mask_and_1_for_one_that_is_all_wrong(scene: tuple[Tensor, Tensor]) -> None:
    _, masks = scene
    sure = 100.0 * (masks[:, None] == torch.arange(5)[:, None, None])
    torch.testing.assert_close(dice_loss(sure, masks), torch.zeros(3))
    wrong = sure.roll(1, dims=1)  # class 1 where 0 is true, and so on
    torch.testing.assert_close(dice_loss(wrong, masks), torch.ones(3))


def test_what_is_predicted_where_all_is_void_does_not_matter(scene: tuple[Tensor, Tensor]) -> None:
    logits, masks = scene
    other = torch.where((masks == VOID)[:, None], 50 * torch.randn_like(logits), logits)
    torch.testing.assert_close(summed_cross_entropy(other, masks), summed_cross_entropy(logits, masks))
    torch.testing.assert_close(dice_loss(other, masks), dice_loss(logits, masks))


def test_without_a_labelled_pixel_losses_and_gradients_are_0() -> None:
    logits = torch.randn(2, 3, 4, 5, requires_grad=True)
    masks = torch.full((2, 4, 5), VOID, dtype=torch.uint8)
    loss = summed_cross_entropy(logits, masks) + dice_loss(logits, masks).sum()
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_a_class_of_no_probability_gives_no_nan() -> None:
    """Softmax gives exactly 0 for a logit that is far below the others."""
    logits = torch.tensor([[5.0, 0.0, -1000.0]]).view(1, 3, 1, 1).requires_grad_()
    dice_loss(logits, torch.zeros(1, 1, 1, dtype=torch.uint8)).sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_dice_has_the_gradient_of_its_formula(scene: tuple[Tensor, Tensor]) -> None:
    logits, masks = scene[0].double().requires_grad_(), scene[1]
    assert torch.autograd.gradcheck(lambda logits: dice_loss(logits, masks), (logits,))
