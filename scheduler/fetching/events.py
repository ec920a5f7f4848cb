"""The events of a state that is fetched. A log has them beside those of its core, each with the
stage and version that it is about, and never a byte of a chunk."""

from __future__ import annotations

from typing import Literal

from swarmrt.ids import PeerId
from swarmrt.recorded import Recorded
from swarmrt.scheduler.fetching.sharing import IN_ALL

Verdict = Literal["right", "damaged", "other"]
Key = tuple[int, int]  # stage, version


class FetchBegan(Recorded, frozen=True):
    """A state is wanted of which nothing is here."""

    size_bytes: int
    chunk_bytes: int
    at_once: int = IN_ALL  # chunks that are asked for


class DonorsNamed(Recorded, frozen=True):
    """A state is wanted, for the first time or again, and these may have it."""

    donors: tuple[PeerId, ...]


class ChunkCame(Recorded, frozen=True):
    """A piece of a file has come; or a donor's offer, which is its first byte."""

    peer: PeerId
    offset_bytes: int
    length_bytes: int
    digest: str
    total_bytes: int


class ChunkWritten(Recorded, frozen=True):
    offset_bytes: int


class FileChecked(Recorded, frozen=True):
    """A look was taken at the whole file."""

    verdict: Verdict
    reason: str


class DonorLost(Recorded, frozen=True):
    """A donor cannot be reached, or its link has broken."""

    peer: PeerId
    reason: str


class DonorRefused(Recorded, frozen=True):
    """A donor does not have the file, or does not give it."""

    peer: PeerId
    reason: str


class DonorsAreLate(Recorded, frozen=True):
    """A deadline has passed. So many bytes of states have come from each donor so far."""

    came_bytes: tuple[tuple[PeerId, int], ...]


FetchEvent = (
    FetchBegan
    | DonorsNamed
    | ChunkCame
    | ChunkWritten
    | FileChecked
    | DonorLost
    | DonorRefused
    | DonorsAreLate
)
ALL_FETCH_EVENTS: tuple[type[FetchEvent], ...] = (
    FetchBegan,
    DonorsNamed,
    ChunkCame,
    ChunkWritten,
    FileChecked,
    DonorLost,
    DonorRefused,
    DonorsAreLate,
)
