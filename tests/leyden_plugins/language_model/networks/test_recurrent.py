"""RNN, GRU and LSTM against their equations written out, step by step, in float64; and what their options do."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leyden_plugins.language_model.networks.gru import GRU
from leyden_plugins.language_model.networks.lstm import LSTM
from leyden_plugins.language_model.networks.rnn import RNN

NETWORKS = [RNN, GRU, LSTM]
SYMBOLS, SIZE = 7, 5


def rnn_cell(inputs: Tensor, hidden: Tensor, weights: Any) -> Tensor:
    """Dive into Deep Learning, (9.4.5)."""
    return torch.tanh(inputs @ weights.w_ih.T + weights.b_ih + hidden @ weights.w_hh.T + weights.b_hh)


def gru_cell(inputs: Tensor, hidden: Tensor, weights: Any) -> Tensor:
    """Dive into Deep Learning, (10.2.1) to (10.2.3), with the reset gate behind the product, as in torch."""
    (w_ir, w_iz, w_in), (w_hr, w_hz, w_hn) = weights.w_ih.chunk(3), weights.w_hh.chunk(3)
    (b_ir, b_iz, b_in), (b_hr, b_hz, b_hn) = weights.b_ih.chunk(3), weights.b_hh.chunk(3)
    reset = 1 / (1 + torch.exp(-(inputs @ w_ir.T + b_ir + hidden @ w_hr.T + b_hr)))
    update = 1 / (1 + torch.exp(-(inputs @ w_iz.T + b_iz + hidden @ w_hz.T + b_hz)))
    candidate = torch.tanh(inputs @ w_in.T + b_in + reset * (hidden @ w_hn.T + b_hn))
    return update * hidden + (1 - update) * candidate


def lstm_cell(inputs: Tensor, hidden: Tensor, memory: Tensor, weights: Any) -> tuple[Tensor, Tensor]:
    """Dive into Deep Learning, (10.1.1) to (10.1.5)."""
    sums = inputs @ weights.w_ih.T + weights.b_ih + hidden @ weights.w_hh.T + weights.b_hh
    enter, forget, node, read = sums.chunk(4, dim=1)
    enter, forget, read = (1 / (1 + torch.exp(-gate)) for gate in (enter, forget, read))
    memory = forget * memory + enter * torch.tanh(node)
    return read * torch.tanh(memory), memory


class Weights:
    def __init__(self, layers: nn.RNNBase, layer: int) -> None:
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        self.w_ih, self.w_hh, self.b_ih, self.b_hh = (getattr(layers, f"{name}_l{layer}") for name in names)


def by_hand(net: Any, tokens: Tensor) -> Tensor:
    """The logits of a network, one step and one layer at a time, from a state of 0."""
    batch, size = len(tokens), net.recurrent.hidden_size
    layers = [Weights(net.recurrent, layer) for layer in range(net.recurrent.num_layers)]
    hidden = [torch.zeros(batch, size, dtype=torch.float64) for _ in layers]
    memory = [torch.zeros(batch, size, dtype=torch.float64) for _ in layers]
    logits = []
    for step in range(tokens.shape[1]):
        if net.embedding is None:
            inputs = torch.eye(net.vocab_size, dtype=torch.float64)[tokens[:, step]]
        else:
            inputs = net.embedding.weight[tokens[:, step]]
        for layer, weights in enumerate(layers):
            if isinstance(net, LSTM):
                hidden[layer], memory[layer] = lstm_cell(inputs, hidden[layer], memory[layer], weights)
            else:
                cell = gru_cell if isinstance(net, GRU) else rnn_cell
                hidden[layer] = cell(inputs, hidden[layer], weights)
            inputs = hidden[layer]
        logits.append(inputs @ net.output.weight.T + net.output.bias)
    return torch.stack(logits, dim=1)


def make(network: type[nn.Module], **options: Any) -> Any:
    torch.manual_seed(0)
    return network(SYMBOLS, hidden_size=SIZE, **options)


@pytest.fixture
def tokens() -> Tensor:
    return torch.randint(0, SYMBOLS, (3, 11), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(
    "options",
    [{}, {"num_layers": 3}, {"embedding_size": 4}, {"num_layers": 2, "embedding_size": SIZE, "tied_weights": True}],
    ids=str,
)
def test_a_network_computes_its_equations(network: type[nn.Module], options: dict[str, Any], tokens: Tensor) -> None:
    net = make(network, **options).double()
    logits, _ = net(tokens)
    torch.testing.assert_close(logits, by_hand(net, tokens), rtol=0, atol=1e-6)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("num_layers", [1, 2])
def test_the_state_is_all_that_later_tokens_know_of_earlier_ones(
    network: type[nn.Module], num_layers: int, tokens: Tensor
) -> None:
    net = make(network, num_layers=num_layers).double()
    whole, last = net(tokens)
    first, state = net(tokens[:, :4])
    second, end = net(tokens[:, 4:], state)
    torch.testing.assert_close(torch.cat((first, second), dim=1), whole)
    assert len(state) == (2 if network is LSTM else 1)
    for one, other in zip(end, last, strict=True):
        assert one.shape == (num_layers, 3, SIZE)
        torch.testing.assert_close(one, other)
    from_zero, _ = net(tokens[:, 4:])
    assert (from_zero - second).abs().max() > 1e-3


@pytest.mark.parametrize("network", NETWORKS)
def test_no_token_is_seen_before_its_turn(network: type[nn.Module], tokens: Tensor) -> None:
    net = make(network)
    changed = tokens.clone()
    changed[:, 6:] = (changed[:, 6:] + 1) % SYMBOLS
    logits, others = net(tokens)[0], net(changed)[0]
    assert torch.equal(logits[:, :6], others[:, :6])
    assert not torch.allclose(logits[:, 6:], others[:, 6:])


@pytest.mark.parametrize("network", NETWORKS)
def test_tied_weights_are_one_tensor_that_input_and_output_train(network: type[nn.Module], tokens: Tensor) -> None:
    net = make(network, embedding_size=SIZE, tied_weights=True)
    free = make(network, embedding_size=SIZE)
    assert net.output.weight is net.embedding.weight
    count, count_free = (sum(each.numel() for each in one.parameters()) for one in (net, free))
    assert count_free - count == SYMBOLS * SIZE
    free.load_state_dict(net.state_dict())
    for one in (net, free):
        logits, _ = one(tokens[:, :-1])
        F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
    torch.testing.assert_close(net.output.weight.grad, free.output.weight.grad + free.embedding.weight.grad)


@pytest.mark.parametrize("network", NETWORKS)
def test_dropout_is_between_layers_and_in_training_only(network: type[nn.Module], tokens: Tensor) -> None:
    net = make(network, num_layers=2, embedding_size=4, dropout=0.5)
    assert not torch.equal(net(tokens)[0], net(tokens)[0])
    net.eval()
    assert torch.equal(net(tokens)[0], net(tokens)[0])
    everything = make(network, num_layers=2, embedding_size=4, dropout=1.0)
    torch.testing.assert_close(everything(tokens)[0], everything.output.bias.expand(3, 11, SYMBOLS))
    between = make(network, num_layers=2, dropout=1.0)
    between.dropout = nn.Identity()  # what is left is the dropout between the recurrent layers
    assert torch.equal(between(tokens)[0], between(tokens.flip(1))[0])
    assert not torch.equal(between.eval()(tokens)[0], between(tokens.flip(1))[0])


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bidirectional": True}, "would see the token that it is to tell"),
        ({"tied_weights": True}, "embedding_size that equals hidden_size; they are None and 5"),
        ({"tied_weights": True, "embedding_size": 4}, "they are 4 and 5"),
        ({"num_layers": 0}, "num_layers is 0"),
        ({"embedding_size": 0}, "embedding_size is 0"),
        ({"dropout": 1.5}, r"dropout is 1\.5"),
    ],
)
def test_options_that_cannot_be(network: type[nn.Module], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(network, **options)
