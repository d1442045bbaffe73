"""Hidden sizes at which different cells have the same number of parameters."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable

__all__ = ["nearest_size"]


def nearest_size(count: Callable[[int], int], wanted: int) -> int:
    """The hidden size with nearest as many parameters as wanted, the larger of two that are equally near.

    count: the parameters of a hidden size, which grow with it.

    >>> nearest_size(lambda size: size * size, 20), nearest_size(lambda size: size * size, 23)
    (4, 5)
    """
    above = 1
    while count(above) < wanted:
        above *= 2
    size = bisect_left(range(above), wanted, lo=1, key=count)
    return size if size == 1 or count(size) - wanted <= wanted - count(size - 1) else size - 1
