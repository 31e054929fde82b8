"""Long short-term memory."""

from torch import nn

from leyden_plugins.language_model.networks._recurrent import RecurrentNetwork


class LSTM(RecurrentNetwork):
    """Long short-term memory: gates say what enters a memory cell, what stays in it, and what is read from it.

    i_t, f_t and o_t = sigmoid(W_ih x_t + b_ih + W_hh h_(t-1) + b_hh), each with its weights, g_t the same with tanh;
    c_t = f_t * c_(t-1) + i_t * g_t; h_t = o_t * tanh(c_t).

    Source:
        Hochreiter and Schmidhuber, "Long short-term memory", 1997. Dive into Deep Learning, 10.1.
    """

    layer_class = nn.LSTM
