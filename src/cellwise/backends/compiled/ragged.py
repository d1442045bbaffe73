"""The short path of batches whose rows have several lengths, mostly others in each call."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from torch import Tensor

from cellwise.backends.base import LayerSpec, PlainBatch, Result, Shortcut
from cellwise.backends.compiled.layer_pass import LayerPass
from cellwise.backends.compiled.shortcut import CompiledShortcut

_MOST = 8  # batches that are remembered, for whom their lengths come again; of each form


class RaggedShortcut(Shortcut):
    """A stack of layer passes on batches of one form: what follows from the lengths is made for each call."""

    reads_memory = True

    def __init__(self, stack: LayerSpec, made: LayerPass, batch: PlainBatch) -> None:
        self._stack, self._made, self._form = stack, made, batch
        self._met: dict[tuple[bytes, Hashable], CompiledShortcut] = {}

    def run(
        self,
        x: Tensor,
        states: Sequence[Tensor],
        weights: Sequence[Tensor],
        dropout: float,
        training: bool,
        sizes: Tensor | None,
        resets: Tensor | None = None,
    ) -> Result:
        assert sizes is not None
        each = sizes.numpy().tobytes(), self._made.kernels.compiler.settings()
        found = self._met.get(each)
        if found is None:
            form = self._form._replace(steps=sizes.shape[0], sizes=tuple(sizes.tolist()))
            found = CompiledShortcut(self._stack, self._made, form)
            if len(self._met) >= _MOST:
                self._met.clear()
            self._met[each] = found
        return found.run(x, states, weights, dropout, training, sizes, resets)
