from cellwise.cells.base import Cell, Vector
from cellwise.graph.functions import sigmoid, tanh
from cellwise.graph.parts import layer_norm


class LayerNormLSTM(Cell):
    """LSTM whose input, recurrent input and memory cell are each normalized (Ba, Kiros and Hinton 2016).

    The four gates are normalized as one row. The three vectors that the paper adds after that are one shift a gate.
    With `bias=True` the biases of a layer are added before: the paper has none there.
    """

    name = "layernorm-lstm"
    gates = ("i", "f", "g", "o")
    states = ("h", "c")
    gain_xi, gain_xf, gain_xg, gain_xo = Vector(1.0), Vector(1.0), Vector(1.0), Vector(1.0)
    gain_hi, gain_hf, gain_hg, gain_ho = Vector(1.0), Vector(1.0), Vector(1.0), Vector(1.0)
    shift_i, shift_f, shift_g, shift_o = Vector(0.0), Vector(0.0), Vector(0.0), Vector(0.0)
    gain_c, shift_c = Vector(1.0), Vector(0.0)

    def step(self, x, h, c):
        of_x = (self.gain_xi, self.gain_xf, self.gain_xg, self.gain_xo)
        of_h = (self.gain_hi, self.gain_hf, self.gain_hg, self.gain_ho)
        xi, xf, xg, xo = layer_norm((x.i, x.f, x.g, x.o), of_x)
        hi, hf, hg, ho = layer_norm((h.i, h.f, h.g, h.o), of_h)
        i = sigmoid(xi + hi + self.shift_i)
        f = sigmoid(xf + hf + self.shift_f)
        g = tanh(xg + hg + self.shift_g)
        o = sigmoid(xo + ho + self.shift_o)
        c = f * c + i * g
        return o * tanh(layer_norm(c, self.gain_c, self.shift_c)), c
