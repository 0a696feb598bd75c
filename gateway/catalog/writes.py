"""The writes that every part of the catalog is made of: many rows at once, put in place or removed by key."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

from sqlalchemy import Connection, Table, and_, bindparam, delete
from sqlalchemy.dialects.sqlite import insert

from gateway.catalog.codec import Values

Item = TypeVar("Item")


def batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of at most `size`; nothing is drawn from `items` before a list is asked for."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def put(connection: Connection, table: Table, rows: Sequence[Values]) -> None:
    """Insert rows, or give the ones whose primary key is there new values. Not REPLACE: it would delete first, and with
    the row what refers to it."""
    if not rows:
        return
    names = [column.name for column in table.columns]
    statement = insert(table)
    others = {column.name: statement.excluded[column.name] for column in table.columns if not column.primary_key}
    statement = statement.on_conflict_do_update(index_elements=list(table.primary_key.columns), set_=others)
    connection.execute(statement, [dict(zip(names, row, strict=True)) for row in rows])


def remove(connection: Connection, table: Table, keys: Sequence[Values]) -> None:
    """Delete rows by primary key; one that is not there is no error."""
    if not keys:
        return
    columns = list(table.primary_key.columns)
    statement = delete(table).where(and_(*(column == bindparam(f"key_{column.name}") for column in columns)))
    names = [f"key_{column.name}" for column in columns]
    parameters: list[dict[str, Any]] = [dict(zip(names, key, strict=True)) for key in keys]
    connection.execute(statement, parameters)
