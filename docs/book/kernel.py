"""The loops of a kernel that *How it works* shows, found by what they do, so that they are there on any machine."""

from __future__ import annotations

import re

__all__ = ["blocks", "busiest_loop", "excerpt", "first_product_block", "instructions", "is_product", "tidy"]

# A multiply and add on a vector: as LLVM calls it, on x86, on ARM.
# On ARM a number follows a # without a space.
_COMMENT = re.compile(r"(#+\s|//).*|#$")
_PRODUCT = re.compile(r"^(?!declare).*(llvm\.fma\.|\bvfmadd\d+ps\b|\bfmla\b)")


# Where so many of a loop's instructions are products, it sums products and does nothing else.
SHARE = 0.25


def is_product(line: str) -> bool:
    """Whether a line of LLVM or of assembly multiplies and adds vectors.

    >>> is_product("vfmadd231ps %ymm1, %ymm2, %ymm3"), is_product("vaddps %ymm1, %ymm2, %ymm3")
    (True, False)
    """
    return bool(_PRODUCT.search(line))


def blocks(text: str) -> list[str]:
    """The basic blocks of LLVM or assembly text: what lies between two labels."""
    return [each.strip("\n") for each in re.split(r"\n(?=[\w.\"$-]+:)", text)]


def instructions(block: str) -> list[str]:
    """The lines of an assembly block that do something: no labels, comments or directives."""
    lines = (_COMMENT.sub("", line).strip() for line in block.splitlines())
    return [line for line in lines if line and not line.startswith(".") and not line.endswith(":")]


def products(block: str) -> int:
    return sum(map(is_product, block.splitlines()))


def first_product_block(text: str) -> str:
    """The first block with products in the last function of LLVM text: those of a single row of the batch."""
    routine = text[max(0, text.rfind("\ndefine ")) :]
    return next(each for each in blocks(routine) if products(each))


def busiest_loop(assembly: str) -> str:
    """The innermost loop with the most products; of several such, the shortest.

    Raises:
        ValueError: no loop multiplies and adds vectors.
    """
    loops = [loop for each in blocks(assembly) for loop in [_loop(each)] if loop]
    # The loops of the pointwise equations use a few products too, for their tanh and sigmoid.
    found = [each for each in loops if products(each) >= SHARE * len(instructions(each))]
    if not found:
        raise ValueError("no loop of this code multiplies and adds vectors")
    return max(found, key=lambda each: (products(each), -len(instructions(each))))


def _loop(block: str) -> str:
    """A block as far as it jumps back to its own beginning; nothing if it does not."""
    label, lines = block.partition(":")[0], block.splitlines()
    back = [
        i for i, line in enumerate(lines) if any(each.split()[-1] == label for each in instructions(line))
    ]
    return "\n".join(lines[: back[-1] + 1]) if back else ""


def excerpt(block: str, first: int, last: int) -> str:
    """The beginning and the end of a block; what is left out is marked."""
    lines = block.splitlines()
    left_out = len(lines) - first - last
    if left_out <= 1:
        return block
    return "\n".join([*lines[:first], f"  … {left_out} lines …", *lines[-last:]])


def tidy(code: str) -> str:
    """Assembly without comments, and with its columns in line."""
    lines = []
    for line in code.splitlines():
        name, _, rest = _COMMENT.sub("", line).strip().partition("\t")
        if instructions(line):
            lines.append(f"    {name:<13}{rest}".rstrip())
        elif name.endswith(":"):
            lines.append(name)
    return "\n".join(lines)
