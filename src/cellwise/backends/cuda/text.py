"""Small words for writing C++: lines, blocks, unrolled loops."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Text:
    """Lines of code at the depth of the blocks they are in."""

    def __init__(self, depth: int = 0) -> None:
        self.lines: list[str] = []
        self._depth = depth

    def __str__(self) -> str:
        return "\n".join(self.lines) + "\n"

    def line(self, text: str) -> None:
        self.lines.append("  " * self._depth + text)

    def captured(self, write: Callable[..., None], *arguments: object) -> list[str]:
        """The lines that something writes, for another place."""
        before, self.lines = self.lines, []
        write(*arguments)
        found, self.lines = self.lines, before
        return found

    @contextmanager
    def block(self, head: str = "") -> Iterator[None]:
        """`head { ... }`"""
        self.line(f"{head} {{".lstrip())
        self._depth += 1
        yield
        self._depth -= 1
        self.line("}")

    @contextmanager
    def unrolled(self, index: str, count: int | str) -> Iterator[None]:
        """A loop over `index` whose every turn has code of its own, so that arrays it indexes are registers."""
        self.line("#pragma unroll")
        with self.block(f"for (int {index} = 0; {index} < {count}; ++{index})"):
            yield

    def each(self, count: int, text: str, index: str = "p") -> None:
        """One line for every index."""
        self.line("#pragma unroll")
        self.line(f"for (int {index} = 0; {index} < {count}; ++{index}) {text}")


def c_name(name: str) -> str:
    """A name as C++ takes it: letters, figures and underscores of ASCII. Different names stay different."""
    return "".join(
        each if each.isascii() and each.isalnum() else f"_{ord(each):x}_" if each != " " else "_"
        for each in name
    )
