"""Reports as tables and lines for people: sizes in binary units, times in UTC."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from gateway import clock
from gateway.api import (
    Capability,
    ChainInfo,
    Change,
    CheckReport,
    DiffEntry,
    FileInfo,
    FileType,
    GenerationDetail,
    GenerationInfo,
    GenerationState,
    Grade,
    IngestReport,
    LeftOut,
    Problem,
    RebuildReport,
    SourceIngest,
    Statistics,
    VerifyReport,
)
from gateway.cli.run import safe
from gateway.config import Setting, size_text
from gateway.log import printable

EVIDENCE = {
    1: "quiet only",
    2: "trailer, no writer, quiet",
    3: "marker, rename or log line",
    4: "producer's manifest",
    5: "seal call with a list",
}
_STATE_STYLES = {
    GenerationState.PROTECTED: "green",
    GenerationState.INCOMPLETE: "yellow",
    GenerationState.FAILED: "red",
}
_GRADE_STYLES = {Grade.OK: "green", Grade.WARNING: "yellow", Grade.PROBLEM: "red"}
_TYPE_BITS = {
    FileType.FILE: stat.S_IFREG,
    FileType.DIRECTORY: stat.S_IFDIR,
    FileType.SYMLINK: stat.S_IFLNK,
    FileType.FIFO: stat.S_IFIFO,
    FileType.SOCKET: stat.S_IFSOCK,
    FileType.CHARACTER_DEVICE: stat.S_IFCHR,
    FileType.BLOCK_DEVICE: stat.S_IFBLK,
}
_CHANGE_SIGNS = {Change.ADDED: "+", Change.REMOVED: "-", Change.CHANGED: "M", Change.METADATA: "U"}


def table(*columns: str) -> Table:
    """A name that starts with ">" heads numbers, to the right; one with "=" words that are never folded."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(
            column.lstrip(">="),
            justify="right" if column.startswith(">") else "left",
            overflow="fold",
            no_wrap=column.startswith((">", "=")),
        )
    return made


def facts(pairs: Iterable[tuple[str, str]]) -> Table:
    made = Table(box=None, pad_edge=False, show_header=False)
    made.add_column(style="bold", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in pairs:
        made.add_row(name, Text(safe(value)))
    return made


def count(number: int, noun: str) -> str:
    """``1 file``, ``12,000 files``."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def generations(rows: Sequence[GenerationInfo]) -> list[RenderableType]:
    """The table, and below it what is special about some: a column of its own would not fit a terminal."""
    if not rows:
        return [Text("There are no generations yet. `gateway ingest` makes the first.")]
    made = table("=source", ">number", "id", "created", "=state", ">evidence", ">files", ">size", ">stored")
    special: list[RenderableType] = []
    for row in rows:
        notes = [row.reason, "held" if row.held else "", f"{row.left_out:,} left out" if row.left_out else ""]
        notes.append(f"hot until {clock.text(row.hot_until)}" if row.hot_until else "")
        made.add_row(
            row.source,
            str(row.number),
            row.id[:13],
            clock.text(row.created),
            Text(row.state.value, style=_STATE_STYLES.get(row.state, "")),
            str(row.evidence),
            f"{row.files:,}",
            size_text(row.bytes),
            size_text(row.stored_bytes),
        )
        if any(notes):
            said = safe(", ".join(note for note in notes if note))
            special.append(Text(f"{row.source}@{row.number}: {said}"))
    return [made, *special]


def chains(rows: Sequence[ChainInfo]) -> list[RenderableType]:
    """The table, and below it what is wrong with some."""
    if not rows:
        return [Text("There are no chains yet. `gateway ingest` opens the first.")]
    made = table("=chain", "opened", "=state", "class", ">generations", ">packs", ">data", ">as fulls", ">stored")
    for row in rows:
        made.add_row(
            row.chain,
            clock.text(row.created),
            row.state,
            row.storage_class,
            f"{row.generations:,}",
            f"{row.packs:,}",
            size_text(row.data_bytes),
            size_text(row.full_bytes),
            size_text(row.stored_bytes),
        )
    return [made, *(Text(safe(f"{row.chain}: {row.problem}")) for row in rows if row.problem)]


def _without_base(taken: Statistics) -> str:
    """Of the new chunks: how many could have been compressed against earlier ones, and why they were not."""
    out = []
    if taken.bases_missing:
        wanted = taken.cache_wanted_bytes
        hint = f" (the cache would need {size_text(wanted)})" if wanted is not None else ""
        out.append(f"{_share(taken.bases_missing, taken.new_chunks)} not in the pack cache{hint}")
    if taken.bases_bounded:
        out.append(f"{_share(taken.bases_bounded, taken.new_chunks)} because of bounds")
    return ", ".join(out)


def _share(part: int, whole: int | None) -> str:
    """Of chunks, in per cent where the whole is known."""
    return f"{part / whole:.1%} of the new chunks" if whole else f"{part:,} chunks"


def detail(shown: GenerationDetail) -> list[RenderableType]:
    info = shown.info
    out: list[RenderableType] = [facts(_detail_facts(shown))]
    if shown.statistics:
        taken = shown.statistics
        pairs = [
            ("read", size_text(taken.read_bytes)),
            ("duplicate", size_text(taken.duplicate_bytes)),
            ("new", size_text(taken.new_bytes)),
            ("stored", size_text(taken.stored_bytes)),
        ]
        if taken.delta_bytes:
            pairs.append(("as deltas", size_text(taken.delta_bytes)))
        without = _without_base(taken)
        if without:
            pairs.append(("without base", without))
        if taken.retired_bytes:
            pairs.append(("stored anew", f"{size_text(taken.retired_bytes)}, to let old packs go"))
        if taken.seconds is not None:
            pairs.append(("took", took(taken.seconds)))
        out += [title("Reduction"), facts(pairs), *map(Text, shown.advice)]
    if shown.evidence:
        made = table(">files", "evidence")
        for line in shown.evidence:
            made.add_row(f"{line.files:,}", f"{line.evidence} {EVIDENCE.get(line.evidence, '')}".rstrip())
        out += [title("Evidence"), made]
    if shown.needs:
        made = table("class", ">packs", ">size")
        for need in shown.needs:
            made.add_row(need.storage_class, f"{need.packs:,}", size_text(need.bytes))
        out += [title("Needs"), made]
    if shown.packs:
        made = table(">pack", "=id", "=class", ">size", "=", "=proved")
        for pack in shown.packs:
            proved = clock.text(pack.proved) if pack.proved else "not yet"
            new = "new" if pack.new else ""
            made.add_row(str(pack.number), pack.id, pack.storage_class, size_text(pack.bytes), new, proved)
        out += [title("Packs"), made]
    for job in shown.jobs:
        pairs = [("run", job.run), *((each.name, each.value) for each in job.facts)]
        pairs += [("lacks", each) for each in job.lacks]
        out += [title(f"Backup job of {job.producer}"), facts([(printable(n), printable(v)) for n, v in pairs])]
        if job.kit:
            out += [title("Restore kit"), Text("\n".join(printable(line) for line in job.kit.splitlines()))]
    if shown.left_out or shown.left_out_more:
        out += [title(f"Left out of {info.source}@{info.number}"), *left_out(shown.left_out, shown.left_out_more)]
    return out


def _detail_facts(shown: GenerationDetail) -> list[tuple[str, str]]:
    info = shown.info
    optional = [
        ("reason", info.reason),
        ("sealed", clock.text(shown.sealed) if shown.sealed else ""),
        ("sealed by", shown.operator or ""),
        ("held", "yes" if info.held else ""),
        ("hot until", clock.text(info.hot_until) if info.hot_until else ""),
        ("requires", ", ".join(shown.requires)),
    ]
    return [
        ("generation", f"{info.source}@{info.number}"),
        ("id", info.id),
        ("chain", f"{info.chain}, class {info.storage_class}"),
        ("head", info.head),
        ("state", info.state.value),
        ("created", clock.text(info.created)),
        *[(name, value) for name, value in optional if value],
        ("evidence", f"{info.evidence} {EVIDENCE.get(info.evidence, '')}".rstrip()),
        ("files", f"{info.files:,}"),
        ("size", size_text(info.bytes)),
        ("stored", size_text(info.stored_bytes)),
    ]


def file_line(each: FileInfo) -> str:
    """Like ``ls -l``: mode, size, time, name; the name is escaped so that one file is one line."""
    bits = stat.filemode(_TYPE_BITS[each.type] | (each.mode & 0o7777))
    modified = _nanoseconds(each.mtime_ns)
    line = f"{bits} {size_text(each.size):>10} {modified} {each.printable_path}"
    if each.link_target is not None:
        line += f" -> {printable(each.link_target)}"
    if each.hard_link_to is not None:
        line += f" == {printable(each.hard_link_to)}"
    return line + "\n"


def _nanoseconds(moment: int) -> str:
    try:
        return clock.text(clock.from_milliseconds(moment // 1_000_000))
    except (OverflowError, ValueError, OSError):
        return f"{moment // 1_000_000_000:>20}"  # a date no calendar has; the seconds still say which


def diff_line(entry: DiffEntry) -> str:
    return f"{_CHANGE_SIGNS[entry.change]} {printable(entry.path)}\n"


def left_out(files: Sequence[LeftOut], more: int) -> list[RenderableType]:
    made = table("file", "reason")
    for each in files:
        made.add_row(Text(printable(each.path)), Text(safe(each.reason)))
    return [made] if not more else [made, Text(f"and {count(more, 'more file')}")]


def capabilities(found: Sequence[Capability]) -> list[str]:
    """One line each, for the notes of `init`."""
    return [
        f"store: {each.name}: {each.answer.value}" + (f" ({each.meaning})" if each.meaning else "") for each in found
    ]


def ingest(report: IngestReport) -> RenderableType:
    made = table("=source", "=result", ">files read", ">unchanged", ">held back", ">read", ">new", ">stored", ">took")
    for each in report.sources:
        made.add_row(
            each.source,
            _ingest_result(each),
            f"{each.files_read:,}",
            f"{each.files_unchanged:,}",
            f"{len(each.held_back) + each.held_back_more:,}",
            size_text(each.bytes_read),
            size_text(each.new_bytes),
            size_text(each.stored_bytes),
            took(each.seconds),
        )
    return made


def _ingest_result(each: SourceIngest) -> Text:
    if each.failure:
        return Text("failed", style="red")
    if each.generation is None:
        return Text("nothing new")
    state = each.generation.state
    return Text(f"@{each.generation.number} {state.value}", style=_STATE_STYLES.get(state, ""))


def problems(found: Sequence[Problem], more: int = 0) -> list[RenderableType]:
    if not found:
        return []
    made = table("=problem", "object", "what", "generations")
    for each in found:
        made.add_row(
            Text(each.kind.value, style="red"),
            Text(safe(each.address)),
            Text(safe(each.what)),
            ", ".join(each.generations) or "none",
        )
    return [made] if not more else [made, Text(f"and {count(more, 'more problem')}")]


def verify(report: VerifyReport) -> list[RenderableType]:
    looked = f"{count(report.generations, 'generation')}, {count(report.objects, 'object')}, {size_text(report.bytes)}"
    if report.dry_run:
        text = f"Depth {report.depth.value} would look at {looked} in {count(report.requests, 'request')}."
        return [Text(text), Text("Nothing was read: --dry-run.")]
    found = len(report.problems) + report.problems_more
    verdict = count(found, "problem") if found else "no problems"
    line = Text(f"Depth {report.depth.value}: looked at {looked} in {took(report.seconds)}: {verdict}.")
    return [*problems(report.problems, report.problems_more), line]


def rebuild(report: RebuildReport) -> list[RenderableType]:
    line = Text(
        f"Rebuilt the catalog: {count(report.chains, 'chain')}, {count(report.generations, 'generation')}, "
        f"{count(report.packs, 'pack')} in {took(report.seconds)}."
    )
    return [*problems(report.problems), line, *[Text(f"head {head}") for head in report.heads]]


def settings(effective: Sequence[Setting]) -> RenderableType:
    """Those for tests and experiments only where they are set."""
    made = table("=setting", "value", "=from")
    for each in effective:
        if each.key.startswith("advanced.") and each.origin == "default":
            continue
        made.add_row(each.key, Text(safe(each.value)), each.origin)
    return made


def findings(report: CheckReport) -> RenderableType:
    made = table("=", "checked", "result")
    for each in report.findings:
        made.add_row(
            Text(each.grade.value, style=_GRADE_STYLES[each.grade]), Text(safe(each.subject)), Text(safe(each.text))
        )
    return made


def title(text: str) -> Text:
    return Text(f"\n{text}", style="bold")


def took(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"
