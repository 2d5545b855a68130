"""What a pull reports, and what comes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Sequence


@dataclass(frozen=True)
class Progress:
    """How far a pull is. `stage` is "downloading", "finishing", or what else the program is doing."""

    stage: str = "downloading"
    done: int = 0
    total: int = 0
    downloaded: int = 0
    rate: int = 0
    layers_done: int = 0
    layers: int = 0


@dataclass(frozen=True)
class Image:
    """An image in the archive. `name` is its name there, None for a pull by digest alone."""

    reference: str
    name: Optional[str]
    digest: str
    platform: Optional[str]


@dataclass(frozen=True)
class Result:
    """A finished pull. A stream has no path and no sha256, and names no images.

    `downloaded` and `kept` are the bytes from the network and those that were here; `unchanged`
    says that the archive was already what was asked for, and was left as it was.
    """

    path: Optional[str]
    size: int
    sha256: Optional[str]
    unchanged: bool
    downloaded: int
    kept: int
    images: Sequence[Image]
