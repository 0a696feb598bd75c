"""What an admin should know about how a source reduces. Pure."""

from __future__ import annotations

WORTH_SAYING = 64 * 1024 * 1024
"""LIMIT: below so many new bytes nothing is said: one compressed file is no habit."""
MOST = 0.5
"""The share of new bytes that could not be reduced from which on it is said."""

_PRODUCERS = (
    "Oracle RMAN: plain backup sets (no AS COMPRESSED, no encryption) with FILESPERSET 1",
    "PostgreSQL: pg_basebackup without -z or --compress, pg_dump with -Z 0",
    "SQL Server: WITH NO_COMPRESSION",
    "others: switch compression and encryption off",
)


def of_reduction(new_bytes: int, raw_bytes: int) -> tuple[str, ...]:
    """Advice for a generation with so many new bytes, `raw_bytes` of them stored as they are; empty when it is fine.

    Plain data compress here as well, are encrypted before they leave, and cost next to nothing in later generations; of
    compressed or encrypted data every generation is new.
    """
    if new_bytes < WORTH_SAYING or raw_bytes < MOST * new_bytes:
        return ()
    what = (
        f"{raw_bytes / new_bytes:.0%} of the new data cannot be reduced: they are compressed or encrypted already, so "
        "every generation costs as much as the first. Let the producer write plain data; the gateway compresses and "
        "encrypts them."
    )
    return what, *_PRODUCERS
