"""Greedy and beam search against what is written out here: one sentence at a time, and every sequence there is."""

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from leyden.batches import BOS, EOS, PAD, UNKNOWN_TOKEN
from leyden_plugins.translation.decoding import Decoding, Hypothesis, beam, greedy, translate
from leyden_plugins.translation.networks.seq2seq import Seq2Seq
from leyden_plugins.translation.networks.transformer import Transformer

NETWORKS = {
    "none": lambda target: Seq2Seq(12, target, "gru", "none", 8, 2, 6, bidirectional=True),
    "bahdanau": lambda target: Seq2Seq(12, target, "lstm", "bahdanau", 8, 1, 6),
    "dot": lambda target: Seq2Seq(12, target, "gru", "dot", 8, 1, 6),
    "transformer": lambda target: Transformer(12, target, 8, 2, 2, 16),
}
LENGTHS = torch.tensor([5, 2, 7, 1])


def make_net(name: str, target: int = 11, seed: int = 0) -> Any:
    """A network that is far from sure of anything, but not of everything alike."""
    torch.manual_seed(seed)
    net = NETWORKS[name](target).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(3)
    return net


def make_sources(seed: int = 0) -> Tensor:
    tokens = torch.randint(4, 12, (len(LENGTHS), int(LENGTHS.max())), generator=torch.Generator().manual_seed(seed))
    return tokens.masked_fill(torch.arange(tokens.shape[1]) >= LENGTHS[:, None], PAD)


def log_probability(net: Any, source: Tensor, tokens: list[int], avoid_unknown: bool = False) -> float:
    """Of a whole translation of one source, all tokens at once: no state, no cache."""
    inputs = torch.tensor([[BOS, *tokens[:-1]]])
    with torch.no_grad():
        logs = net(source[None], torch.tensor([len(source)]), inputs)[0].double().log_softmax(dim=1)
    return float(sum(logs[place, token] for place, token in enumerate(tokens)))


def each_alone(net: Any, sources: Tensor, decoding: Decoding) -> list[list[Hypothesis]]:
    rows = zip(sources, LENGTHS.tolist(), strict=True)
    return [translate(net, row[None, :length], torch.tensor([length]), decoding)[0] for row, length in rows]


@pytest.fixture(autouse=True)
def _no_gradients() -> Any:
    with torch.no_grad():
        yield


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("beam_size", [1, 3])
def test_a_batch_is_translated_like_each_sentence_alone(name: str, beam_size: int) -> None:
    net, sources = make_net(name), make_sources()
    decoding = Decoding(beam_size, max_length=9)
    together, alone = translate(net, sources, LENGTHS, decoding), each_alone(net, sources, decoding)
    for mine, theirs in zip(together, alone, strict=True):
        assert [found.tokens for found in mine] == [found.tokens for found in theirs]
        assert [found.score for found in mine] == pytest.approx([found.score for found in theirs], abs=1e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_more_padding_changes_nothing(name: str) -> None:
    net, sources = make_net(name), make_sources()
    padded = torch.nn.functional.pad(sources, (0, 4), value=PAD)
    for size in (1, 3):
        decoding = Decoding(size, max_length=9)
        narrow, wide = (translate(net, each, LENGTHS, decoding) for each in (sources, padded))
        assert [[found.tokens for found in row] for row in narrow] == [[found.tokens for found in row] for row in wide]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("seed", range(3))
def test_a_beam_of_one_is_greedy(name: str, seed: int) -> None:
    net, sources = make_net(name, seed=seed), make_sources(seed)
    decoding = Decoding(1, max_length=9)
    likeliest, searched = greedy(net, sources, LENGTHS, decoding), beam(net, sources, LENGTHS, decoding)
    assert [found.tokens for found in likeliest] == [row[0].tokens for row in searched]
    assert [found.score for found in likeliest] == pytest.approx([row[0].score for row in searched], abs=1e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_greedy_takes_the_likeliest_token_each_time(name: str) -> None:
    net, sources = make_net(name), make_sources()
    found = greedy(net, sources, LENGTHS, Decoding(1, max_length=6))
    for source, length, hypothesis in zip(sources, LENGTHS.tolist(), found, strict=True):
        tokens: list[int] = []
        while len(tokens) < 6 and (not tokens or tokens[-1] != EOS):
            logits = net(source[None, :length], torch.tensor([length]), torch.tensor([[BOS, *tokens]]))[0, -1]
            logits[[PAD, BOS]] = -torch.inf
            tokens.append(EOS if len(tokens) == 5 else int(logits.argmax()))
        assert hypothesis.tokens == [token for token in tokens if token != EOS]


def every_sequence(symbols: int, longest: int) -> list[list[int]]:
    """What a translation can be."""
    told = [token for token in range(symbols) if token not in (PAD, BOS, EOS)]
    return [[*begin, EOS] for length in range(longest) for begin in product(told, repeat=length)]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
@pytest.mark.parametrize(("symbols", "longest"), [(7, 2), (6, 3)])
def test_a_beam_that_holds_all_finds_the_best_sequence_there_is(
    name: str, length_penalty: float, symbols: int, longest: int
) -> None:
    net, sources = make_net(name, symbols), make_sources()
    decoding = Decoding(symbols ** (longest - 1), length_penalty, longest)  # the vocabulary's size where longest is 2
    found = beam(net, sources, LENGTHS, decoding)
    for source, length, hypotheses in zip(sources, LENGTHS.tolist(), found, strict=True):
        scores = {
            tuple(tokens): log_probability(net, source[:length], tokens) / ((5 + len(tokens)) / 6) ** length_penalty
            for tokens in every_sequence(symbols, longest)
        }
        best = max(scores, key=lambda tokens: scores[tokens])
        assert hypotheses[0].tokens == [token for token in best if token != EOS]
        assert hypotheses[0].score == pytest.approx(scores[best], abs=1e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_scores_are_those_of_the_whole_sequence_and_fall(name: str) -> None:
    net, sources = make_net(name), make_sources()
    for source, length, hypotheses in zip(
        sources, LENGTHS.tolist(), beam(net, sources, LENGTHS, Decoding(4, 0.6, 8)), strict=True
    ):
        assert [each.score for each in hypotheses] == sorted((each.score for each in hypotheses), reverse=True)
        assert len({tuple(each.tokens) for each in hypotheses}) == len(hypotheses)
        for each in hypotheses:
            tokens = [*each.tokens, EOS]
            expected = log_probability(net, source[:length], tokens) / ((5 + len(tokens)) / 6) ** 0.6
            assert each.score == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("name", ["bahdanau", "dot", "transformer"])
@pytest.mark.parametrize("beam_size", [1, 3])
def test_attention_is_of_each_token_and_sums_to_one_over_the_source(name: str, beam_size: int) -> None:
    net, sources = make_net(name), make_sources()
    found = translate(net, sources, LENGTHS, Decoding(beam_size, max_length=7))
    for length, hypotheses in zip(LENGTHS.tolist(), found, strict=True):
        for each in hypotheses:
            if not each.tokens:
                assert each.attention is None
                continue
            assert each.attention is not None
            assert each.attention.shape == (len(each.tokens), sources.shape[1])
            torch.testing.assert_close(each.attention.sum(dim=1), torch.ones(len(each.tokens)))
            assert (each.attention[:, length:] == 0).all()


@pytest.mark.parametrize("beam_size", [1, 3])
def test_attention_follows_its_hypothesis(beam_size: int) -> None:
    """Fed with what was told, the network looks where the search says that it looked."""
    net, sources = make_net("dot"), make_sources()
    for row, hypotheses in enumerate(translate(net, sources, LENGTHS, Decoding(beam_size, max_length=7))):
        memory, state = net.encode(sources[row : row + 1], LENGTHS[row : row + 1])
        tokens = [BOS, *hypotheses[0].tokens]
        for place in range(len(hypotheses[0].tokens)):
            _, weights, state = net.step(torch.tensor([tokens[place]]), state, memory)
            assert hypotheses[0].attention is not None
            width = weights.shape[1]
            torch.testing.assert_close(hypotheses[0].attention[place, :width], weights[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("beam_size", [1, 3])
def test_padding_and_the_beginning_are_never_told_and_unknown_only_if_wanted(beam_size: int) -> None:
    net, sources = make_net("none"), make_sources()
    with torch.no_grad():
        net.output.bias[[UNKNOWN_TOKEN, PAD, BOS]] += 50
    kept = translate(net, sources, LENGTHS, Decoding(beam_size, max_length=6))
    avoided = translate(net, sources, LENGTHS, Decoding(beam_size, max_length=6, avoid_unknown=True))
    assert all(set(row[0].tokens) == {UNKNOWN_TOKEN} for row in kept)
    assert not any({UNKNOWN_TOKEN, PAD, BOS, EOS} & set(each.tokens) for row in avoided for each in row)


@pytest.mark.parametrize("beam_size", [1, 2])
def test_a_translation_ends_at_twice_its_source_and_ten(beam_size: int) -> None:
    net, sources = make_net("none"), make_sources()
    with torch.no_grad():
        net.output.bias[EOS] -= 100
    found = translate(net, sources, LENGTHS, Decoding(beam_size))
    assert [len(row[0].tokens) + 1 for row in found] == [20, 14, 24, 12]  # and its end


def test_a_source_of_nothing_but_its_end_is_translated() -> None:
    for name in NETWORKS:
        found = translate(make_net(name), torch.tensor([[EOS]]), torch.tensor([1]), Decoding(2, max_length=4))
        assert len(found[0]) >= 1
