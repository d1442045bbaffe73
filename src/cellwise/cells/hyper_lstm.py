from cellwise.cells.base import Cell
from cellwise.graph.functions import linear, sigmoid, tanh


class HyperLSTM(Cell):
    """LSTM whose weights a smaller LSTM scales, row by row and step by step (HyperNetworks, Ha, Dai and Le 2016).

    Without the layer normalization that the paper adds in some experiments, and without dropout. Gates p and q are
    those of the small LSTM, which sees x and h. Its state before the step makes three embeddings for each gate (z), and
    these what the rows of the gate's two products are scaled by (dh, dx) and its bias (db). `hyper` is its number of
    units, 128 beside 1,000 in the paper, that of h if None; `embedding` is that of each embedding.
    """

    name = "hyper-lstm"
    gates = (
        *("i", "f", "g", "o"),
        *("pi", "pf", "pg", "po", "qi", "qf", "qg", "qo"),
        *(f"{what}_{gate}" for what in ("zh", "zx", "zb", "dh", "dx", "db") for gate in "ifgo"),
    )
    states = ("h", "c", "hyper_h", "hyper_c")
    widths = {  # noqa: RUF012  (a table, as gates are)
        "hyper_h": "hyper",
        "hyper_c": "hyper",
        **{f"{z}_{gate}": "embedding" for z in ("zh", "zx", "zb") for gate in "ifgo"},
    }
    hyper: int | str | None = 16
    embedding: int = 4

    def step(self, x, h, c, hyper_h, hyper_c):
        def scaled(gate):
            zh, zx = getattr(hyper_h, f"zh_{gate}"), getattr(hyper_h, f"zx_{gate}")
            zb = linear(getattr(hyper_h, f"zb_{gate}"))
            of_h = linear(getattr(zh, f"dh_{gate}")) * linear(getattr(h, gate))
            of_x = linear(getattr(zx, f"dx_{gate}")) * linear(getattr(x, gate))
            return of_h + of_x + getattr(zb, f"db_{gate}")

        i, f, o = sigmoid(scaled("i")), sigmoid(scaled("f")), sigmoid(scaled("o"))
        c = f * c + i * tanh(scaled("g"))
        p_i = sigmoid(x.pi + linear(hyper_h.pi) + linear(h.qi))
        p_f = sigmoid(x.pf + linear(hyper_h.pf) + linear(h.qf))
        p_o = sigmoid(x.po + linear(hyper_h.po) + linear(h.qo))
        hyper_c = p_f * hyper_c + p_i * tanh(x.pg + linear(hyper_h.pg) + linear(h.qg))
        return o * tanh(c), c, p_o * tanh(hyper_c), hyper_c
