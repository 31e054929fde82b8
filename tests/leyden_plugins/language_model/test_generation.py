"""Generation: warm-up and steps against full forward passes, and draws against probabilities written out."""

from typing import Any

import pytest
import torch
from torch import Tensor

from leyden_plugins.language_model.generation import Sampling, generate, warm_up
from leyden_plugins.language_model.networks.gru import GRU
from leyden_plugins.language_model.networks.lstm import LSTM
from leyden_plugins.language_model.networks.rnn import RNN

SYMBOLS = 9
LENGTHS = [4, 1, 7, 4, 2]
LOGITS = torch.tensor([[0.5, 2.0, -1.0, 1.0, 0.0]])


@pytest.fixture(params=[RNN, GRU, LSTM])
def net(request: Any) -> Any:
    torch.manual_seed(0)
    return request.param(SYMBOLS, hidden_size=16, num_layers=2).eval()


@pytest.fixture
def prompts() -> Tensor:
    """Padded with what no network could take."""
    tokens = torch.randint(0, SYMBOLS, (5, 7), generator=torch.Generator().manual_seed(1))
    for row, length in zip(tokens, LENGTHS, strict=True):
        row[length:] = 10**9
    return tokens


@pytest.fixture
def lengths() -> Tensor:
    return torch.tensor(LENGTHS)


def test_each_prompt_leaves_the_state_that_it_leaves_alone(net: Any, prompts: Tensor, lengths: Tensor) -> None:
    with torch.no_grad():
        logits, state = warm_up(net, prompts, lengths)
        for row, length in enumerate(LENGTHS):
            expected, alone = net(prompts[row : row + 1, :length])
            torch.testing.assert_close(logits[row], expected[0, -1])
            for part, own in zip(state, alone, strict=True):
                torch.testing.assert_close(part[:, row], own[:, 0])


def test_step_by_step_the_logits_are_those_of_a_full_forward_pass(
    net: Any, prompts: Tensor, lengths: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []
    drawn: list[Tensor] = []
    choose = Sampling.choose

    def note(self: Sampling, logits: Tensor, numbers: Tensor) -> Tensor:
        seen.append(logits)
        drawn.append(numbers)
        return choose(self, logits, numbers)

    monkeypatch.setattr(Sampling, "choose", note)
    with torch.no_grad():
        tokens = generate(net, prompts, lengths, 12, Sampling(temperature=1.0))
        for row, length in enumerate(LENGTHS):
            text = torch.cat((prompts[row, :length], tokens[row]))
            full = net(text[None])[0][0, length - 1 : -1]
            torch.testing.assert_close(torch.stack([logits[row] for logits in seen]), full)
    assert torch.stack(drawn, dim=1).unique().numel() == 5 * 12  # every prompt and every step has its own


def test_without_temperature_the_likeliest_token_follows(net: Any, prompts: Tensor, lengths: Tensor) -> None:
    with torch.no_grad():
        tokens = generate(net, prompts, lengths, 6, Sampling())
        for row, length in enumerate(LENGTHS):
            text = prompts[row, :length]
            for _ in range(6):
                text = torch.cat((text, net(text[None])[0][0, -1].argmax()[None]))
            assert tokens[row].tolist() == text[length:].tolist()


def test_a_continuation_does_not_depend_on_the_neighbours(net: Any, prompts: Tensor, lengths: Tensor) -> None:
    sampling = Sampling(temperature=1.0, top_k=6, seed=5)
    with torch.no_grad():
        together = generate(net, prompts, lengths, 20, sampling)
        order = torch.tensor([3, 0, 4])
        assert torch.equal(generate(net, prompts[order], lengths[order], 20, sampling), together[order])
        alone = [
            generate(net, prompts[row : row + 1, :length], lengths[row : row + 1], 20, sampling)
            for row, length in enumerate(LENGTHS)
        ]
        assert torch.equal(torch.cat(alone), together)
        other = generate(net, prompts, lengths, 20, Sampling(temperature=1.0, top_k=6, seed=6))
        assert not torch.equal(other, together)


def frequencies(sampling: Sampling, logits: Tensor) -> Tensor:
    """How often each token is chosen for evenly spaced numbers, which is the probability with which it is drawn."""
    count = 100_000
    numbers = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    chosen = sampling.choose(logits.expand(count, -1), numbers.float())
    return chosen.bincount(minlength=logits.shape[1]) / count


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_tokens_are_drawn_by_the_probabilities_at_a_temperature(temperature: float) -> None:
    expected = (LOGITS.double() / temperature).softmax(dim=1)[0]
    found = frequencies(Sampling(temperature=temperature), LOGITS)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("top_k", "kept"), [(1, [1]), (2, [1, 3]), (3, [0, 1, 3]), (5, [0, 1, 2, 3, 4])])
def test_top_k_draws_of_the_likeliest(top_k: int, kept: list[int]) -> None:
    expected = torch.zeros(5, dtype=torch.float64)
    expected[kept] = (LOGITS[0, kept].double() / 0.6).softmax(dim=0)
    found = frequencies(Sampling(temperature=0.6, top_k=top_k), LOGITS)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("top_p", [0.01, 0.3, 0.55, 0.8, 0.9, 0.95, 0.99, 1.0])
def test_top_p_draws_of_the_fewest_that_together_have_the_probability(top_p: float) -> None:
    probabilities = LOGITS[0].double().softmax(dim=0)
    kept: list[int] = []
    for token in probabilities.argsort(descending=True).tolist():
        if probabilities[kept].sum() < top_p:
            kept.append(token)
    expected = torch.zeros(5, dtype=torch.float64)
    expected[kept] = probabilities[kept] / probabilities[kept].sum()
    found = frequencies(Sampling(temperature=1.0, top_p=top_p), LOGITS)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-4)


def test_top_p_counts_what_top_k_has_left() -> None:
    """Of two with .73 and .27, the first alone has .7; of all five it has only .55."""
    found = frequencies(Sampling(temperature=1.0, top_k=2, top_p=0.7), LOGITS)
    assert found.tolist() == [0, 1, 0, 0, 0]


def test_the_largest_and_the_smallest_number_choose_tokens_that_are_kept() -> None:
    numbers = torch.tensor([0.0, 1.0])  # to which the largest below 1 may be rounded
    logits = torch.tensor([[0.0, -200.0, 1.0, -300.0]]).expand(2, -1)
    assert Sampling(temperature=1.0).choose(logits, numbers).tolist() == [0, 2]
    assert Sampling(temperature=1.0, top_k=3, top_p=0.9).choose(logits, numbers).tolist() == [2, 0]
