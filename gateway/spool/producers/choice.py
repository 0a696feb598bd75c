"""Which producers are asked about a source. One that is added stands here, and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.config.values import SourceConfig, SourceKind
from gateway.spool.producers.base import Producer
from gateway.spool.producers.files import FilesProducer
from gateway.spool.producers.folders import FoldersProducer
from gateway.spool.producers.postgresql import PostgreSQLProducer
from gateway.spool.structure import Read, State, Structure

KNOW_LOGS: tuple[Producer, ...] = (PostgreSQLProducer(),)
"""Who may find a stretch of a log that a job requires, in files of any source."""


def producers_of(source: SourceConfig) -> tuple[Producer, ...]:
    """In the order in which they are asked: who recognises something takes it."""
    if source.kind is not SourceKind.JOB:
        return (FilesProducer(),)
    folders = FoldersProducer((source.marker or "").replace("{name}", "{folder}"))
    return (PostgreSQLProducer(), folders, FilesProducer())


def inspect(producers: Sequence[Producer], path: bytes, size: int, read: Read) -> Structure:
    """What the first says who knows more than that it does not know."""
    found = Structure(state=State.UNKNOWN)
    for producer in producers:
        found = producer.inspect(path, size, read)
        if found.state is not State.UNKNOWN:
            break
    return found
