"""The heads say of each anchor what they see at the place that the anchor lies on, in the order of the anchors."""

import itertools

import pytest
import torch
from torch import nn

from leyden_plugins.detection.anchors import AnchorGrid
from leyden_plugins.detection.networks._heads import AnchorHeads

SIZES = ((0.2, 0.3), (0.5,), (0.8, 0.85, 0.9))
RATIOS = (1.0, 2.0)
MAPS = ((3, 4), (2, 2), (1, 2))
IMAGE = (60, 80)


def silent_heads(num_classes):
    heads = AnchorHeads([2, 3, 4], num_classes, AnchorGrid(SIZES, RATIOS))
    for p in heads.parameters():
        nn.init.zeros_(p)
    return heads


@pytest.mark.parametrize("level", range(3))
def test_what_is_seen_at_a_place_is_said_of_the_anchors_there(level):
    """One place of one map lights up, and one kernel looks at it: one number of one anchor is not 0."""
    grid, (rows, columns) = AnchorGrid(SIZES, RATIOS), MAPS[level]
    anchors = grid.boxes(MAPS, IMAGE, torch.device("cpu"))
    shapes = [(size, 1.0) for size in SIZES[level]] + [(SIZES[level][0], 2.0)]
    for row, column, (shape, (size, ratio)) in itertools.product(range(rows), range(columns), enumerate(shapes)):
        heads = silent_heads(num_classes=2)
        maps = [torch.zeros(1, channels, *size) for channels, size in zip((2, 3, 4), MAPS, strict=True)]
        maps[level][0, 1, row, column] = 1
        heads.class_heads[level].weight.data[shape * 3 + 2, 1, 1, 1] = 5
        heads.box_heads[level].weight.data[shape * 4 + 3, 1, 1, 1] = 7
        logits, offsets, map_sizes = heads(maps)
        assert map_sizes == MAPS
        [(_, anchor, label)] = logits.nonzero().tolist()
        assert (label, logits[0, anchor, label]) == (2, 5)
        assert offsets.nonzero().tolist() == [[0, anchor, 3]]
        assert offsets[0, anchor, 3] == 7
        centre, extent = (anchors[anchor, :2] + anchors[anchor, 2:]) / 2, anchors[anchor, 2:] - anchors[anchor, :2]
        place = torch.tensor([(column + 0.5) * 80 / columns, (row + 0.5) * 60 / rows])
        torch.testing.assert_close(centre, place)
        torch.testing.assert_close(extent, torch.tensor([size * ratio**0.5, size / ratio**0.5]) * 60)


def test_a_place_sees_its_neighbours():
    heads = silent_heads(num_classes=1)
    maps = [torch.zeros(1, channels, *size) for channels, size in zip((2, 3, 4), MAPS, strict=True)]
    maps[0][0, 0, 0, 0] = 1
    heads.class_heads[0].weight.data[0] = 1
    seen = heads(maps).logits[0, : 12 * 3, 0].view(3, 4, 3)[:, :, 0]
    assert seen.tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize("num_classes", [1, 3, 20])
@pytest.mark.parametrize("background", [0.01, 0.5, 0.99])
def test_the_background_has_its_probability_at_first(num_classes, background):
    heads = AnchorHeads([4, 4, 4], num_classes, AnchorGrid(SIZES, RATIOS), background)
    silence = [torch.zeros(1, 4, *size) for size in MAPS]
    found = heads(silence).logits.softmax(dim=2)
    torch.testing.assert_close(found[..., 0], torch.full(found.shape[:2], background))
    torch.testing.assert_close(found[..., 1:], torch.full_like(found[..., 1:], (1 - background) / num_classes))
    seen = heads([torch.randn(2, 4, *size) for size in MAPS]).logits.softmax(dim=2)[..., 0]
    assert (seen - background).abs().max() < 0.1
    assert seen.std() > 0


@pytest.mark.parametrize("background", [0.0, 1.0, -0.5, 1.5, float("nan")])
def test_a_background_that_cannot_be(background):
    with pytest.raises(ValueError, match=f"background is {background}, expected a probability above 0 and below 1"):
        AnchorHeads([4, 4, 4], 2, AnchorGrid(SIZES, RATIOS), background)
