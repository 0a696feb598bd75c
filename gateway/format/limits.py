"""Bounds every reader checks (docs/format/limits.md section 1). Sizes in bytes."""

from __future__ import annotations

FORMAT = 1
SUITE = 1

KIB = 1024
MIB = 1024 * KIB

JSON_BYTES = 64 * KIB
SHEET_BYTES = 64 * KIB
ENTRY_BYTES = 1 * MIB
PACK_BYTES = 1024 * MIB
INDEX_BYTES = 64 * MIB
PACK_FRAMES = 2**20
CHUNK_BYTES = 1 * MIB
SEGMENT_BYTES = 2 * MIB
BASE_BYTES = 1 * MIB
BASE_RUNS = 64
DEPTH = 8
CLOSURE_BYTES = 32 * MIB
PART_BYTES = 64 * MIB
LIST_DEPTH = 8
FRAME_BYTES = 4 * MIB
"""Of a sealed frame, the last of a container aside."""
RECORD_BYTES = 1 * MIB
PATH_BYTES = 65535
NESTING = 16
JSON_INTEGER = 2**53 - 1
RUNS_PER_RECORD = 4096
HOLES_PER_RECORD = 4096
LEFT_OUT_IN_ENTRY = 1000
PACKS_IN_RANGES = 2**24
DIGEST_PIECE_BYTES = 64 * MIB
FEATURES: frozenset[str] = frozenset()
