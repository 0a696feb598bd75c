"""Whether a generation looks as if something destroyed the source: encrypted in place, emptied, cut down. Pure.

It is only a reason to stop removing anything and to tell somebody: backup goes on whatever it looks like.
"""

from __future__ import annotations

from dataclasses import dataclass

FEW_FILES = 10
"""LIMIT: sources of fewer files are not judged by how many changed: one job of a database is all of them."""
MANY = 0.5
"""LIMIT: share of files gone or rewritten, or of bytes gone, between two generations. A backup rotation that replaces
everything at once rewrites all, but into files that compress as before."""
DENSE, WAS_LOOSE = 0.9, 0.7
"""LIMIT: what of the new bytes could not be compressed: nearly all now, where it was clearly less before."""
ENOUGH_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Of one generation. `carried`: files that did not change; `new_raw` of its new bytes, `stored_raw` of these not
    compressible at all."""

    files: int
    bytes: int
    carried: int
    new_raw: int
    stored_raw: int


def anomaly(before: Shape, after: Shape, *, dense_before: float | None, may_shrink: bool = False) -> str:
    """What looks wrong, as one sentence; empty for nothing. `dense_before`: share of incompressible new bytes over the
    generations before, None where they had too few. `may_shrink`: files leave the source because we release them."""
    if not may_shrink and before.files >= FEW_FILES and after.files < before.files * (1 - MANY):
        return f"{before.files - after.files:,} of {before.files:,} files are gone since the generation before"
    if not may_shrink and before.bytes >= ENOUGH_BYTES and after.bytes < before.bytes * (1 - MANY):
        return f"the files hold {after.bytes:,} bytes, after {before.bytes:,} in the generation before"
    if before.files < FEW_FILES or after.new_raw < ENOUGH_BYTES or dense_before is None:
        return ""
    rewritten = 1 - after.carried / max(1, after.files)
    dense = after.stored_raw / after.new_raw
    if rewritten > MANY and dense >= DENSE and dense_before < WAS_LOOSE:
        return (
            f"{rewritten:.0%} of the files were rewritten, and {dense:.0%} of what is new cannot be compressed, "
            f"after {dense_before:.0%} before: it may have been encrypted"
        )
    return ""
