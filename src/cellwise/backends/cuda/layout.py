"""How a kernel's work lies on the device, and which way suits a call."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from cellwise.backends.cuda.numbers import Number
from cellwise.backends.cuda.products import Product, products_of
from cellwise.plan.affine import slopes_of
from cellwise.plan.program import Program, Width

Kind = Literal["wide", "solo", "narrow", "lanes", "scan", "stepwise", "rowwise"]
# Kinds that multiply by cuBLAS, and so are several launches a step.
BY_CUBLAS = ("stepwise", "rowwise")
# Whose blocks have all units of their rows, and know nothing of each other.
ALONE = ("solo", "narrow", "lanes")

QUAD = 64  # bytes of the inner dimension that four lanes read at once, 16 each
TILE_NUMBERS = 128  # of a matrix product: 16 units, 8 rows
_TILE = 8  # rows of a matrix product
_MOST_REGISTERS = 128  # of 255 that a thread may have, for weights
# Of a multiprocessor; and of a thread, for all but weights, where threads have all units of a row.
_REGISTERS, _OTHER_REGISTERS = 2**16, 64
_MOST_TILES = 8  # that a warp computes at once, each in four registers of a thread
# Of a layer in a step, up to which more threads are better than more numbers for each.
_FEW_NUMBERS = 2**17
_MOST_OF_ROW = 16  # warps that share a row: more would leave a thread too few registers for a long step
_MANY_REGISTERS = 64  # for weights, of which products in three parts make twice as many


@dataclass(frozen=True)
class Layout:
    """How the units and rows of a layer are shared out.

    wide: a block of threads owns some units and some rows; its warps share the inner dimension of the products, each
        with its part of the weights in registers for all steps. What other blocks need goes through L2.
    solo: a block owns 8 rows and all units, a warp 16 of them; what others need goes through shared memory.
    narrow: the same with 4 rows, in every second column of the products: half the equations for each thread.
    lanes: a block owns 1, 2 or 4 rows (`tiles`) and all units, four lanes a unit; 32 bits, by plain multiplications.
    scan: narrow, for units that know only themselves, in many stretches of time at once.
    stepwise: at every step a product by cuBLAS and a launch for the equations after it; nothing is held, so any size.
    rowwise: stepwise, for cells that add up over units: a block has rows whole, and a launch all equations between two
        products.

    Args:
        units: of a block (wide). tiles: of 8 rows in a block; `at_once` of them are computed together.
        chunk: how many reads of 16 bytes a thread has under way for each tile; 0 for all.
        hold: cycles from the last post to the first look at what others post: early readers slow the writers down.
        ahead: steps that reads are under way before their own (solo), a power of two.
    """

    kind: Kind
    units: int = 16
    warps: int = 8
    tiles: int = 1
    at_once: int = 1
    chunk: int = 0
    hold: int = 0
    ahead: int = 8

    def __post_init__(self) -> None:
        if self.kind == "wide" and self.units * _TILE * self.at_once > self.threads:
            raise ValueError(
                f"{self.threads} threads are fewer than {self.units} x {_TILE * self.at_once} numbers"
            )

    @property
    def threads(self) -> int:
        return 32 * self.warps

    @property
    def rows(self) -> int:
        """Of a block at a time."""
        return {"solo": 8, "narrow": 4, "scan": 4, "lanes": self.tiles}.get(self.kind, _TILE * self.tiles)

    @property
    def units_of_warp(self) -> int:
        """Where a block has all units of its rows."""
        return 8 if self.kind == "lanes" else 16

    def __str__(self) -> str:
        if self.kind == "stepwise":
            return "stepwise, products by cuBLAS and a launch for the equations after each"
        if self.kind == "rowwise":
            return f"rowwise, products by cuBLAS and between two of them a launch, {self.warps} warps a row"
        if self.kind != "wide":
            rows, warps = (
                f"{n} {what}{'s' * (n > 1)}" for n, what in ((self.rows, "row"), (self.warps, "warp"))
            )
            return f"{self.kind}, {rows} a block, {warps}"
        return f"wide, {self.units} units and {self.rows} rows a block, {self.warps} warps"


STEPWISE = Layout("stepwise", warps=4)
# For cells without products in time.
NARROW, SCAN = Layout("narrow", warps=1, ahead=16), Layout("scan", warps=1, ahead=16)
ONE_WARP = Layout("solo", warps=1)
_MOST_UNITS = ONE_WARP.units_of_warp * 65535  # blocks side by side, of a grid's second side
# Steps of a stretch at least, and stretches at least, since each step is computed twice; stretches at most, since each
# goes through those before its own; blocks of one warp on a multiprocessor at most.
STRETCH, STRETCHES, _MOST_STRETCHES, _BLOCKS = 64, 4, 128, 16
# Steps from which on that is worth a second launch, and H and tiles from which on products by cuBLAS are faster than
# blocks that go through so many rows one after the other: measured on an H200 (docs/decisions/0052).
LONG, _LARGE, _MANY_TILES = 2**13, 512, 16


@dataclass(frozen=True)
class Form:
    """What a kernel's text depends on beside its program and layout.

    hidden, width: H, and how far apart rows lie. dense: every step has all rows. biases: those that the layer has, of
    bias_ih and bias_hh. output_is_state: the outputs are written where the first state's history lies. histories: the
    carried buffers that lie in the rows of all steps. projected, projected_width: P and how far apart its rows lie, 0
    without proj_size. lasts: whether what the last step leaves of the histories is wanted by itself, too.
    """

    number: Number
    hidden: int
    width: int
    dense: bool
    resets: bool
    biases: frozenset[str]
    output_is_state: bool
    histories: frozenset[str]
    projected: int = 0
    projected_width: int = 0
    lasts: bool = False


@dataclass(frozen=True)
class Device:
    """What of a device decides: its architecture, multiprocessors, and the shared memory that a block may have.

    together: whether it starts blocks that are to run all at once.
    """

    architecture: str
    multiprocessors: int
    shared: int
    together: bool = True


# Those that a measurement tries, by whether the program goes backward.
_TRIED: dict[bool, Layout] = {}


@contextmanager
def trying(forward: Layout | None, backward: Layout | None) -> Iterator[None]:
    """While this lasts kernels have these layouts, to be measured or tested; None leaves the choice."""
    given = {False: forward, True: backward}
    before = dict(_TRIED)
    _TRIED.update({way: layout for way, layout in given.items() if layout is not None})
    try:
        yield
    finally:
        _TRIED.clear()
        _TRIED.update(before)


def tried() -> tuple[Layout | None, Layout | None]:
    """The layouts that are tried now."""
    return _TRIED.get(False), _TRIED.get(True)


def layout_for(program: Program, form: Form, batch: int, device: Device, steps: int = 0) -> Layout:
    """The layout of a call: stepwise where no other holds the weights, or the multiprocessors not its units.

    Args:
        steps: of the call; 0 if there may be any number.
    """
    wanted = _TRIED.get(is_backward(program))
    if knows_rows(program):
        return (
            wanted
            if wanted is not None and has_whole_rows(wanted, form)
            else by_rules(program, form, batch, device)
        )
    if form.projected:  # rows of two widths
        return wanted if wanted is not None and wanted.kind == STEPWISE.kind else STEPWISE
    if wanted is not None:
        return wanted
    chosen = by_rules(program, form, batch, device)
    many = chosen == NARROW and not form.resets and stretches_of(steps, batch, form.width, device) > 1
    return SCAN if many and slopes_of(program) is not None else chosen


def stretches_of(steps: int, batch: int, width: int, device: Device) -> int:
    """In how many stretches so many steps of a scan are run."""
    blocks = -(-batch // SCAN.rows) * (width // (16 * SCAN.warps))
    found = min(steps // STRETCH, device.multiprocessors * _BLOCKS // max(1, blocks), _MOST_STRETCHES)
    return found if found >= STRETCHES and steps >= LONG else 1


def knows_rows(program: Program) -> bool:
    """Whether a program has numbers of a row: what all units give together, or follows from that."""
    return any(buffer.width in (Width.ROW, Width.PARTIAL) for buffer in program.buffers)


def has_whole_rows(layout: Layout, form: Form) -> bool:
    """Whether its blocks have all units of a row."""
    alone = layout.kind in ALONE and layout.units_of_warp * layout.warps == form.width and not form.projected
    return alone or layout.kind == "rowwise"


def is_together(layout: Layout) -> bool:
    """Whether the blocks of a launch wait for each other."""
    return layout.kind == "wide"


def step_by_step(program: Program, form: Form) -> Layout:
    """The layout that takes a program of any size, on any device."""
    if not knows_rows(program):
        return STEPWISE
    return Layout("rowwise", warps=min(-(-max(form.width, form.projected_width) // 32), _MOST_OF_ROW))


def why_step_by_step(program: Program, form: Form, batch: int, device: Device) -> str | None:
    """Why the rules have a call go step by step, as the end of a sentence; None where that is its only way, or it goes
    another one, which somebody tries.
    """
    if form.projected or by_rules(program, form, batch, device).kind not in BY_CUBLAS:
        return None
    if knows_rows(program):
        return "a block, which is to have all units, does not hold the weights"
    if form.width > _MOST_UNITS:
        return f"{form.hidden} units are more than a launch has blocks for"
    if holding(program, form, batch, device):
        return f"{batch} rows would be too many for blocks that go through them in turn"
    count = device.multiprocessors
    return f"the registers of {count} multiprocessor{'s' * (count > 1)} do not hold the weights"


def is_backward(program: Program) -> bool:
    """Whether a program is that of a backward pass: it writes gradients at gates."""
    return any(buffer.name == "gates" for buffer in program.buffers)


@lru_cache(maxsize=1024)
def by_rules(program: Program, form: Form, batch: int, device: Device) -> Layout:
    """The layout of a call where nothing was measured and nothing is tried."""
    products = [product for stage in program.stages for product in products_of(stage)]
    if knows_rows(program):
        whole = step_by_step(program, form)
        return whole if form.projected else _solo(products, form, batch, device) or whole
    if not products:  # units have nothing to do with each other, and the more reads are under way the better
        few = batch * form.hidden <= _FEW_NUMBERS
        return NARROW if few else ONE_WARP if form.width <= _MOST_UNITS else STEPWISE
    solo = _solo(products, form, batch, device)
    if solo is not None:
        return solo
    fitting = holding(program, form, batch, device)
    if not fitting:
        return STEPWISE
    thrice = form.number.product == "mma_tf32_thrice"

    def rank(each: Layout) -> tuple[float, ...]:
        """The most blocks at work, each with the fewest rows, all of them at once, in about eight warps."""
        crowded = thrice and registers(products, form, each) > _MANY_REGISTERS
        return each.rows, crowded, -each.units, each.tiles // each.at_once, abs(each.warps - 8)

    best = min(fitting, key=rank)
    many = _MANY_TILES // 2 if thrice else _MANY_TILES
    return STEPWISE if best.tiles >= many and form.hidden >= _LARGE else best


def holding(program: Program, form: Form, batch: int, device: Device) -> list[Layout]:
    """The wide layouts whose blocks hold the weights."""
    products = [product for stage in program.stages for product in products_of(stage)]
    return [
        layout
        for layout in _candidates(products, form, batch, device)
        if _fits(products, form, layout, device)
    ]


def _solo(products: list[Product], form: Form, batch: int, device: Device) -> Layout | None:
    """The layout whose blocks know nothing of each other, if their registers hold the weights."""
    warps, few = form.width // 16, batch <= 4 * device.multiprocessors
    if form.number.bytes == 4 and (few or form.number.product == "mma_tf32_thrice"):
        return _lanes(products, form, batch, device)
    widest = 128 if form.number.bytes == 2 else 64
    if form.width > widest or registers(products, form, Layout("solo", warps=warps)) > _MOST_REGISTERS:
        return None
    return Layout("narrow" if few else "solo", warps=warps)


def _lanes(products: list[Product], form: Form, batch: int, device: Device) -> Layout | None:
    """As many blocks at once as there are multiprocessors, with as few rows each as that leaves."""
    rows = next((each for each in (1, 2) if batch <= each * device.multiprocessors), 4)
    layout = Layout("lanes", warps=form.width // 8, tiles=rows)
    room = min(_MOST_REGISTERS, _REGISTERS // layout.threads - _OTHER_REGISTERS)
    return layout if form.width <= 128 and registers(products, form, layout) <= room else None


def _most(form: Form, warps: int) -> int:
    # With 16 warps a thread has half as many. Products in three parts need more beside the weights.
    most = _MOST_REGISTERS if warps <= 8 else _MOST_REGISTERS // 2
    return most * 3 // 4 if form.number.product == "mma_tf32_thrice" else most


def _candidates(products: list[Product], form: Form, batch: int, device: Device) -> list[Layout]:
    found = []
    for units in (16, 8):
        for warps in (4, 8, 16):
            blocks = -(-form.width // units)
            groups = device.multiprocessors // blocks
            if not groups:
                continue
            tiles = 1
            while tiles < 16 and tiles * groups * _TILE < batch:
                tiles *= 2
            for at_once in (1, 2, 4):
                if at_once <= tiles and units * _TILE * at_once <= 32 * warps:
                    found.append(_tuned(products, form, Layout("wide", units, warps, tiles, at_once)))
    return found


def _tuned(products: list[Product], form: Form, layout: Layout) -> Layout:
    """The same with the reads under way that its registers have room for, and a hold."""
    most = max((loads_of(product, form, layout) for product in products), default=1)
    tiles = max((tiles_of(product, layout) for product in products), default=1)
    room = 4 if layout.at_once * tiles <= 4 else 2
    if layout.warps == 16 and registers(products, form, layout) > 32:
        room = max(1, room // 2 if layout.at_once <= 2 else 1)
    chunk = min(most, room)
    # Measured on an H100: about the time in which a post reaches all others.
    hold = (
        0
        if layout.tiles > layout.at_once
        else 300
        if form.width <= 128
        else 900
        if layout.at_once == 1
        else 800
    )
    return Layout(layout.kind, layout.units, layout.warps, layout.tiles, layout.at_once, chunk, hold)


def _fits(products: list[Product], form: Form, layout: Layout, device: Device) -> bool:
    if registers(products, form, layout) > _most(form, layout.warps):
        return False
    # Twice, since what one stage writes another still reads; and room in registers for those of a thread.
    if 2 * 4 * sum(sums_of(each, layout) for each in products) > device.shared:
        return False
    most_tiles = _MOST_TILES // 2 if form.number.product == "mma_tf32_thrice" else _MOST_TILES
    if any(tiles_of(each, layout) * layout.at_once > most_tiles for each in products):
        return False
    # A warp without a part of the inner dimension would be of no use.
    return layout.warps == 4 or all(chunks_of(product, form) >= layout.warps for product in products)


def words_of(product: Product, form: Form) -> int:
    """The inner dimension in 32-bit words."""
    return len(product.columns) * form.width * form.number.bytes // 4


def chunks_of(product: Product, form: Form) -> int:
    """The inner dimension in pieces that four lanes read at once."""
    return words_of(product, form) * 4 // QUAD


def loads_of(product: Product, form: Form, layout: Layout) -> int:
    """Reads of 16 bytes that a thread makes for each tile of rows."""
    chunks = chunks_of(product, form)
    return -(-chunks // layout.warps) if layout.kind == "wide" else chunks


def tiles_of(product: Product, layout: Layout) -> int:
    """Matrix products of 16 units that a warp makes for each tile of rows and 32 bytes."""
    accumulators = len(product.accumulators)
    return -(-accumulators * layout.units // 16) if layout.kind == "wide" else accumulators


def registers(products: list[Product], form: Form, layout: Layout) -> int:
    """Of a thread, for the weights of these products."""
    units = layout.units if layout.kind == "wide" else layout.units_of_warp
    return sum(len(each.accumulators) * units * loads_of(each, form, layout) // 2 for each in products)


def sums_of(product: Product, layout: Layout) -> int:
    """Numbers of shared memory for the partial sums of a product, those of every warp of a wide block."""
    return layout.warps * layout.at_once * tiles_of(product, layout) * TILE_NUMBERS
