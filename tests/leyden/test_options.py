import pytest

from leyden.options import require_choice, require_positive, require_probability


def test_what_can_be_passes():
    require_positive(one=1, many=[1, 2])
    require_probability(none=0.0, all=1)
    require_choice("stride", 16, (32, 16, 8))


@pytest.mark.parametrize("wrong", [0, -3, [], [4, 0]])
def test_sizes_below_one(wrong):
    with pytest.raises(ValueError, match=r"width is .*, expected .* of at least 1"):
        require_positive(height=1, width=wrong)


@pytest.mark.parametrize("wrong", [-0.1, 1.1, float("nan")])
def test_no_probabilities(wrong):
    with pytest.raises(ValueError, match=r"dropout is .*, expected a probability from 0 to 1"):
        require_probability(dropout=wrong)


def test_what_is_no_choice():
    with pytest.raises(ValueError, match=r"stride is 4, expected one of 32, 16, 8\."):
        require_choice("stride", 4, (32, 16, 8))
    with pytest.raises(ValueError, match=r"pooling is 'mean', expected one of avg, max\."):
        require_choice("pooling", "mean", ("avg", "max"))
