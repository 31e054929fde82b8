"""Gated recurrent unit."""

from torch import nn

from leyden_plugins.language_model.networks._recurrent import RecurrentNetwork


class GRU(RecurrentNetwork):
    """Gated recurrent unit: gates say how much of the old state is read, and how much of it stays.

    r_t and z_t = sigmoid(W_ih x_t + b_ih + W_hh h_(t-1) + b_hh), each with its weights;
    n_t = tanh(W_in x_t + b_in + r_t * (W_hn h_(t-1) + b_hn)); h_t = (1 - z_t) * n_t + z_t * h_(t-1).

    Source:
        Cho et al., "Learning phrase representations using RNN encoder-decoder", 2014. Dive into Deep Learning, 10.2.
    """

    layer_class = nn.GRU
