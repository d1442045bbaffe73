"""Checksums that tell damage from data: of JSON objects, of named tensors, of files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

__all__ = ["file_digest", "json_digest", "parts_digest", "tensors_digest"]

_BLOCK = 1 << 20


def parts_digest(parts: Iterable[bytes | memoryview]) -> str:
    """SHA-256 over a list of parts, each with its length before it: no two lists run together to the same bytes."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def json_digest(value: Mapping[str, Any]) -> str:
    """SHA-256 of what a JSON object says, however it is laid out."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def tensors_digest(tensors: Mapping[str, torch.Tensor], about: str) -> str:
    """SHA-256 of tensors with their names, types and shapes, and of the text that goes with them."""
    parts: list[bytes | memoryview] = [about.encode("utf8")]
    for name, value in sorted(tensors.items()):
        parts.append(f"{name} {value.dtype} {tuple(value.shape)}".encode("utf8", "surrogatepass"))
        # Of an empty tensor torch shows no bytes, but it has its part, as in the files of earlier versions.
        bare = value.detach().contiguous().view(-1)
        parts.append(bare.view(torch.uint8).numpy().data if value.numel() else b"")
    return parts_digest(parts)


def file_digest(path: Path) -> dict[str, Any]:
    """Size and SHA-256 of a file, JSON-able. Raises OSError."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            size += len(block)
    return {"bytes": size, "sha256": digest.hexdigest()}
