"""Sizes at which the writer cuts. The format only bounds them: a change never makes old data unreadable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True, kw_only=True)
class WriterSizes:
    """The writer's thresholds; table ``[advanced]`` of the configuration, for tests and experiments.

    Raises `ValueError` where two of them contradict.
    """

    pack_bytes: int = 224 * MIB
    """LIMIT: 14 parts of 16 MiB, below the 250 MB up to which Glacier's Expedited retrieval is meant."""
    part_bytes: int = 16 * MIB
    """LIMIT: S3 wants at least 5 MiB for every part but the last; only stores for tests take less."""
    segment_bytes: int = 256 * KIB
    extent_bytes: int = 64 * MIB
    """Data of smaller files that one worker takes at a time; a larger file goes in pieces of its digest, 64 MiB."""
    own_stream_bytes: int = 16 * MIB
    """A file with more data than this is a stream of its own."""
    small_pack_bytes: int = 8 * MIB
    """Packs below this are never sent to a class that may go cold, and are retired when older than a week."""
    list_part_records: int = 4096
    runs_per_record: int = 4096
    outline_runs_bytes: int = 64 * KIB
    checkpoint_packs: int = 4096
    checkpoint_minutes: int = 60
    chunk_average_bytes: int = 16 * KIB
    """A power of two from 4 to 64 KiB; smallest chunk a quarter of it, largest four times it."""

    def __post_init__(self) -> None:
        for name, text in contradictions(asdict(self)):
            raise ValueError(f"{name} {text}")


def contradictions(sizes: Mapping[str, int]) -> list[tuple[str, str]]:
    """What is wrong in a full set of sizes, as (name, text)."""
    found = [(name, "must be at least 1") for name, size in sizes.items() if size < 1]
    average = sizes["chunk_average_bytes"]
    if average.bit_count() != 1 or not 4 * KIB <= average <= 64 * KIB:
        found.append(("chunk_average_bytes", "must be a power of two from 4 KiB to 64 KiB"))
    for smaller, larger in (
        ("part_bytes", "pack_bytes"),
        ("small_pack_bytes", "pack_bytes"),
        ("segment_bytes", "extent_bytes"),
    ):
        if sizes[smaller] > sizes[larger]:
            found.append((smaller, f"must not be larger than {larger}"))
    return found
