"""What differs between two file lists: a merge of two sorted streams. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from gateway.api import Change, DiffEntry
from gateway.format.filelist import Item, LeftOutRecord
from gateway.jobs.views import file_info
from gateway.model.entry import order_key


def differences(before: Iterable[Item | LeftOutRecord], after: Iterable[Item | LeftOutRecord]) -> Iterator[DiffEntry]:
    """Added, removed, changed (other data) and metadata (same data, other attributes), in list order."""
    olds, news = _items(before), _items(after)
    changed = set[int]()
    old, new = next(olds, None), next(news, None)
    while old is not None or new is not None:
        if new is None or (old is not None and order_key(old.entry.path) < order_key(new.entry.path)):
            assert old is not None
            yield DiffEntry(path=old.entry.path, change=Change.REMOVED, before=file_info(old.entry))
            old = next(olds, None)
        elif old is None or order_key(new.entry.path) < order_key(old.entry.path):
            yield DiffEntry(path=new.entry.path, change=Change.ADDED, after=file_info(new.entry))
            new = next(news, None)
        else:
            change = _change(old, new)
            if new.entry.hardlink and hash(new.entry.hardlink) in changed:
                change = Change.CHANGED  # with the file it is another name of, which stands before it
            elif change is Change.CHANGED:
                changed.add(hash(new.entry.path))
            if change is not None:
                yield DiffEntry(
                    path=new.entry.path, change=change, before=file_info(old.entry), after=file_info(new.entry)
                )
            old, new = next(olds, None), next(news, None)


def _items(records: Iterable[Item | LeftOutRecord]) -> Iterator[Item]:
    return (each for each in records if isinstance(each, Item))


def _change(old: Item, new: Item) -> Change | None:
    a, b = old.entry, new.entry
    data = ("kind", "size", "digest", "target", "hardlink", "rdev")
    if any(getattr(a, name) != getattr(b, name) for name in data) or old.holes != new.holes:
        return Change.CHANGED
    rest = ("mtime_ns", "mode", "uid", "gid", "xattrs")
    return Change.METADATA if any(getattr(a, name) != getattr(b, name) for name in rest) else None
