"""How tags mark entities: IOB1, IOB2, BIOES, and the same with other letters (BILOU).

A tag is "O" or a prefix, a hyphen and a type ("B-PER"). An entity is (start, stop, type): words start to stop - 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = [
    "OUTSIDE",
    "SCHEMES",
    "Entity",
    "allowed_moves",
    "encode",
    "entities",
    "find_scheme",
    "is_begin",
    "kinships",
]

Entity = tuple[int, int, str]
SCHEMES = ("IOB1", "IOB2", "BIOES")
OUTSIDE = "O"
_LETTERS = {"L": "E", "U": "S", "M": "I"}  # of BILOU and BMES, in those of BIOES
_PREFIXES = frozenset("BIESLUM")
_BEGINS, _ENDS = "BS", "ES"


def split_tag(tag: str) -> tuple[str, str]:
    """Prefix, in the letters of BIOES, and type.

    >>> split_tag("B-PER"), split_tag("U-LOC"), split_tag("O"), split_tag("I")
    (('B', 'PER'), ('S', 'LOC'), ('O', ''), ('I', ''))
    """
    if tag == OUTSIDE:
        return OUTSIDE, ""
    prefix, _, kind = tag.partition("-")
    return _LETTERS.get(prefix, prefix), kind


def is_begin(tag: str) -> bool:
    """Whether an entity begins with this tag of BIOES.

    >>> [is_begin(tag) for tag in ("B-PER", "I-PER", "E-PER", "S-PER", "O")]
    [True, False, False, True, False]
    """
    return split_tag(tag)[0] in _BEGINS


def kinships(tags: Sequence[str]) -> list[list[bool]]:
    """What tags of BIOES have in common, each as a mask of the tags: a type, a prefix, that they mark an entity at all.

    >>> kinships(["O", "B-PER", "S-PER"])
    [[False, True, True], [False, True, False], [False, False, True], [False, True, True]]
    """
    parts = [split_tag(tag) for tag in tags]
    inside = [prefix != OUTSIDE for prefix, _ in parts]
    shared = [
        [own[place] == value for own in parts]
        for place in (1, 0)
        for value in sorted({own[place] for own, has in zip(parts, inside, strict=True) if has})
    ]
    return [*([a and b for a, b in zip(mask, inside, strict=True)] for mask in shared), inside]


def find_scheme(sentences: Iterable[Sequence[str]]) -> str | None:
    """The scheme of the tags of sentences; None if they do not mark entities.

    >>> find_scheme([["O", "I-PER", "I-PER", "B-PER"]]), find_scheme([["B-PER", "I-PER", "O"]])
    ('IOB1', 'IOB2')
    >>> find_scheme([["S-PER", "O"]]), find_scheme([["NOUN", "O"]])
    ('BIOES', None)
    """
    letters, has_outside, is_first = set(), False, False
    for tags in sentences:
        before = (OUTSIDE, "")
        for tag in tags:
            if tag == OUTSIDE:
                has_outside = True
            elif tag[:1] not in _PREFIXES or (len(tag) > 1 and tag[1] != "-"):
                return None
            prefix, kind = split_tag(tag)
            letters.add(prefix)
            is_first |= prefix == "I" and (before[0] == OUTSIDE or before[1] != kind)
            before = prefix, kind
    if not has_outside or letters == {OUTSIDE}:
        return None
    if letters & set("ES"):
        return "BIOES"
    return "IOB1" if is_first else "IOB2"


def entities(tags: Sequence[str]) -> list[Entity]:
    """The entities that tags of any scheme mark, in order.

    Tags that no scheme allows are read as the script of CoNLL 2000 reads them (Tjong Kim Sang and Buchholz 2000): an
    entity goes on as long as its type does, unless a prefix says that one begins or ends.

    >>> entities(["I-PER", "I-PER", "B-PER", "O", "I-LOC", "E-LOC"])
    [(0, 2, 'PER'), (2, 3, 'PER'), (4, 6, 'LOC')]
    """
    made: list[Entity] = []
    start, before = -1, (OUTSIDE, "")
    for place, tag in enumerate([*tags, OUTSIDE]):
        prefix, kind = split_tag(tag)
        breaks = prefix == OUTSIDE or prefix in _BEGINS or before[0] in _ENDS or kind != before[1]
        if start >= 0 and breaks:
            made.append((start, place, before[1]))
            start = -1
        if start < 0 and prefix != OUTSIDE:
            start = place
        before = prefix, kind
    return made


def encode(found: Iterable[Entity], length: int, scheme: str) -> list[str]:
    """Tags for `length` words that mark these entities, which must not overlap.

    >>> encode([(0, 2, "PER"), (2, 3, "PER")], 4, "IOB1"), encode([(0, 2, "PER"), (2, 3, "LOC")], 4, "BIOES")
    (['I-PER', 'I-PER', 'B-PER', 'O'], ['B-PER', 'E-PER', 'S-LOC', 'O'])
    """
    tags = [OUTSIDE] * length
    stopped = (-1, "")
    for start, stop, kind in sorted(found):
        suffix = f"-{kind}" if kind else ""
        tags[start:stop] = [f"I{suffix}"] * (stop - start)
        if scheme == "BIOES":
            tags[start], tags[stop - 1] = f"B{suffix}", f"E{suffix}"
            if stop - start == 1:
                tags[start] = f"S{suffix}"
        elif scheme == "IOB2" or stopped == (start, kind):
            tags[start] = f"B{suffix}"
        stopped = (stop, kind)
    return tags


def allowed_moves(tags: Sequence[str]) -> tuple[list[list[bool]], list[bool], list[bool]]:
    """For tags of BIOES: whether each may follow each (from, to), begin a sentence, and end one."""
    parts = [split_tag(tag) for tag in tags]

    def is_open(prefix: str) -> bool:  # whether an entity goes on after it
        return prefix in "BI"

    moves = [
        [
            (prefix in "IE" and kind == other) if is_open(before) else prefix in ("O", "B", "S")
            for prefix, kind in parts
        ]
        for before, other in parts
    ]
    return (
        moves,
        [prefix in ("O", "B", "S") for prefix, _ in parts],
        [prefix in ("O", "E", "S") for prefix, _ in parts],
    )
