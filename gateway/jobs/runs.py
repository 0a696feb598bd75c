"""What the generations of single backup jobs read: one set of known files a run, beside that of the newest generation.

Local: without a set nothing of its job is released, and its files are looked at once more. Which runs have one is in
the catalog's `meta`, written before the set and after its end. CRASH: a run without a set is passed over.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from gateway.catalog import Catalog, KnownFile
from gateway.model.entry import Identity


class Run(msgspec.Struct, frozen=True, array_like=True):
    """`sealed`: milliseconds."""

    run: str
    sealed: int


_runs = msgspec.json.Decoder(tuple[Run, ...])


def known_name(source: str, run: str) -> str:
    """Under which name the catalog knows what the generation of a run read. No source is called so."""
    return f"{source}#{run}"


def remember(catalog: Catalog, source: str, run: Run, generation: bytes, files: Iterable[KnownFile]) -> None:
    """The set of a run is this one from here on."""
    others = [each for each in _noted(catalog, source) if each.run != run.run]
    _note(catalog, source, [*others, run])
    catalog.forget_known(known_name(source, run.run))
    catalog.update_known(known_name(source, run.run), generation, files)


def of_runs(catalog: Catalog, source: str) -> list[tuple[Run, bytes]]:
    """Runs that have a set, and the generations that read it; in the order of their seals."""
    found = []
    for each in sorted(_noted(catalog, source), key=lambda each: (each.sealed, each.run)):
        generation = catalog.known_generation(known_name(source, each.run))
        if generation is not None:
            found.append((each, generation))
    return found


def known_of_runs(catalog: Catalog, source: str) -> Iterator[KnownFile]:
    """What all of them read, by key; of one key the newest first."""
    sets = [catalog.known_files(known_name(source, each.run)) for each, _ in reversed(of_runs(catalog, source))]
    return heapq.merge(*sets, key=lambda each: each.key)


def known_below(catalog: Catalog, source: str, folder: bytes) -> frozenset[tuple[bytes, Identity]]:
    """The versions of files in a folder that any of them read."""
    names = [known_name(source, each.run) for each, _ in of_runs(catalog, source)]
    return frozenset((each.path, each.identity) for name in names for each in catalog.known_files(name, folder))


def forget_gone(catalog: Catalog, source: str, root: bytes) -> None:
    """Nothing need be known of jobs that have left the spool."""
    for each, _ in of_runs(catalog, source):
        name = known_name(source, each.run)
        if not any(os.path.lexists(os.path.join(root, known.path)) for known in catalog.known_files(name)):
            catalog.forget_known(name)
            _note(catalog, source, [one for one in _noted(catalog, source) if one.run != each.run])


def is_less(
    catalog: Catalog, source: str, there: Mapping[bytes, Identity], holds: Iterable[bytes], marked_ms: int
) -> bool:
    """Whether these files are what is left of a job: unchanged, and fewer, and no marker came after its seal. `holds`:
    folders that it lay in."""
    folders = tuple(each + b"/" for each in holds)
    for each, _ in of_runs(catalog, source):
        if each.sealed < marked_ms:
            continue
        known = {
            one.path: one.identity
            for one in catalog.known_files(known_name(source, each.run))
            if one.path.startswith(folders)
        }
        if len(known) > len(there) and all(known.get(path) == identity for path, identity in there.items()):
            return True
    return False


def _noted(catalog: Catalog, source: str) -> tuple[Run, ...]:
    text = catalog.meta(f"runs/{source}")
    return () if text is None else _runs.decode(text)


def _note(catalog: Catalog, source: str, runs: list[Run]) -> None:
    catalog.set_meta(f"runs/{source}", msgspec.json.encode(runs).decode())
