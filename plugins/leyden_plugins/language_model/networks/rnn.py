"""Recurrent neural network."""

from torch import nn

from leyden_plugins.language_model.networks._recurrent import RecurrentNetwork


class RNN(RecurrentNetwork):
    """Recurrent neural network: h_t = tanh(W_ih x_t + b_ih + W_hh h_(t-1) + b_hh).

    Source:
        Elman, "Finding structure in time", 1990. Dive into Deep Learning, 9.4 and 9.6.
    """

    layer_class = nn.RNN
