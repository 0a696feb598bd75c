"""Slow and plain implementations of the format, written from docs/format alone, to hold the real ones against."""
