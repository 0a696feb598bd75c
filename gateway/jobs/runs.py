"""What the generations of single backup jobs read: one set of known files a run, beside that of the newest generation.

Local: without a set nothing of its job is released, and its files are looked at once more.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping

from gateway.catalog import BackupJobRow, Catalog, JobState, KnownFile
from gateway.model.entry import Identity


def known_name(source: str, run: str) -> str:
    """Under which name the catalog knows what the generation of a run read. No source is called so."""
    return f"{source}#{run}"


def of_runs(catalog: Catalog, source: str) -> list[tuple[BackupJobRow, bytes]]:
    """Runs of which it is known what their generations read, and these; in the order of their seals."""
    found = []
    for row in catalog.jobs(source, JobState.PROTECTED, JobState.INCOMPLETE, JobState.SEALED):
        generation = catalog.known_generation(known_name(source, row.run))
        if generation is not None:
            found.append((row, generation))
    return found


def known_of_runs(catalog: Catalog, source: str) -> Iterator[KnownFile]:
    """What all of them read, by key; of one key the newest first."""
    sets = [catalog.known_files(known_name(source, row.run)) for row, _ in reversed(of_runs(catalog, source))]
    return heapq.merge(*sets, key=lambda each: each.key)


def is_less(
    catalog: Catalog, source: str, there: Mapping[bytes, Identity], holds: Iterable[bytes], marked_ms: int
) -> bool:
    """Whether these files are what is left of a job: unchanged, and fewer, and no marker came after its seal. `holds`:
    folders that it lay in."""
    folders = tuple(each + b"/" for each in holds)
    for row, _ in of_runs(catalog, source):
        if row.sealed < marked_ms:
            continue
        known = {
            each.path: each.identity
            for each in catalog.known_files(known_name(source, row.run))
            if each.path.startswith(folders)
        }  # fmt: skip
        if len(known) > len(there) and all(known.get(path) == identity for path, identity in there.items()):
            return True
    return False
