"""Runs a command line, and is the one place that maps errors and reports to exit codes.

0 ok, 1 failed, 2 usage or configuration, 3 partial, 10 to 22 as in `gateway.errors`, 130 interrupted. The list for
operators is in docs/operate/cli.md.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import traceback
from collections.abc import Sequence

import click

from gateway.api import Failure

from gateway.cli import serving, jobs, retaining, cold  # isort: skip  # noqa: F401  (they add their verbs, in this order)
from gateway.cli.app import gateway
from gateway.cli.run import ApiFactory, ReaderGone, Run, open_engine
from gateway.errors import ConfigError, GatewayError

INTERRUPTED = 130
DEBUG_VARIABLE = "GATEWAY_DEBUG"


def main(args: Sequence[str] | None = None, *, api_factory: ApiFactory = open_engine) -> int:
    """Carry out a command line (default: the process's) and return its exit code. Never raises."""
    words = list(sys.argv[1:] if args is None else args)
    _speak_utf8()
    run = Run(factory=api_factory, json_asked=_asks_for_json(words))
    try:
        code = _dispatch(words, run)
        sys.stdout.flush()
    except (ReaderGone, BrokenPipeError):
        _drop_output()
        code = run.exit_code
    except OSError as error:
        _drop_output()  # what is left in the buffer would fail again when the interpreter ends, as exit code 120
        code = _fail(_unwritable(error), run)
    return code


def _dispatch(words: list[str], run: Run) -> int:
    try:
        result = gateway.main(words, prog_name="gateway", standalone_mode=False, obj=run)
        return result if isinstance(result, int) else run.exit_code
    except GatewayError as error:
        return _fail(_failure(error), run, mistakes=error.mistakes if isinstance(error, ConfigError) else ())
    except (click.exceptions.Abort, KeyboardInterrupt):
        return _fail(run.interruption or _INTERRUPTION, run)
    except click.ClickException as error:
        return _fail(_usage(error), run)
    except ReaderGone:
        raise
    except Exception as error:  # noqa: BLE001  (the last door: everything becomes a message and exit code 1)
        debug = os.environ.get(DEBUG_VARIABLE) == "1"
        if debug:
            traceback.print_exc()
        return _fail(_unexpected(error, debug=debug), run)


_INTERRUPTION = Failure(
    kind="Interrupted",
    what="Interrupted.",
    meaning="What was reported as done stays done; the rest was not done.",
    advice="Run the same command again: it goes on from there.",
    exit_code=INTERRUPTED,
)


def _failure(error: GatewayError) -> Failure:
    if isinstance(error, ConfigError):
        count = "a mistake" if len(error.mistakes) == 1 else f"{len(error.mistakes)} mistakes"
        what, meaning = f"The configuration has {count}.", "Nothing was done."
        return Failure(kind="ConfigError", what=what, meaning=meaning, advice="", exit_code=error.exit_code)
    return Failure(
        kind=type(error).__name__,
        what=error.what,
        meaning=error.meaning,
        advice=error.advice,
        exit_code=error.exit_code,
    )


def _usage(error: click.ClickException) -> Failure:
    context = error.ctx if isinstance(error, click.UsageError) else None
    path = context.command_path if context else "gateway"
    return Failure(
        kind="UsageError",
        what=error.format_message(),
        meaning=context.get_usage() if context else "",
        advice=f"`{path} --help` explains it.",
        exit_code=2,
    )


def _unwritable(error: OSError) -> Failure:
    return Failure(
        kind="OutputError",
        what=f"Standard output cannot be written: {error.strerror or error}.",
        meaning="The work was done, but not all that was said about it could be written.",
        advice="Check the disk or the program that standard output goes to.",
        exit_code=GatewayError.exit_code,
    )


def _unexpected(error: Exception, *, debug: bool) -> Failure:
    return Failure(
        kind=type(error).__name__,
        what=f"Unexpected {type(error).__name__}: {error}",
        meaning="This is a defect of the gateway. What was reported as done stays done.",
        advice="Report the traceback above."
        if debug
        else f"Run the command again with {DEBUG_VARIABLE}=1 in the environment and report what it prints.",
        exit_code=1,
    )


def _fail(failure: Failure, run: Run, *, mistakes: tuple[str, ...] = ()) -> int:
    """Say what went wrong, on standard error and, with ``--json``, as the document on standard output."""
    run.exit_code = failure.exit_code
    with contextlib.suppress(OSError):
        run.show_failure(failure, mistakes=mistakes)
    if (run.json or run.json_asked) and not run.began_data:
        error: dict[str, object] = {
            "class": failure.kind,
            "what": failure.what,
            "meaning": failure.meaning,
            "advice": failure.advice,
            "exit_code": failure.exit_code,
        }
        if mistakes:
            error["mistakes"] = mistakes
        run.document({"error": error})
    return failure.exit_code


def _asks_for_json(words: list[str]) -> bool:
    """Also where the rest of the command line cannot be understood."""
    return "--json" in (words[: words.index("--")] if "--" in words else words)


def _speak_utf8() -> None:
    """JSON is UTF-8 whatever the locale says, and no name of a file may stop a report half way.

    A stream that was closed by whoever started us (``>&-``) is none at all; what is written there is dropped.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, io.StringIO())
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def _drop_output() -> None:
    """Let the interpreter's last flush go nowhere, instead of into a pipe that nobody reads."""
    with contextlib.suppress(OSError, ValueError, io.UnsupportedOperation):
        output = sys.stdout.fileno()
        nowhere = os.memfd_create("nowhere")
        os.dup2(nowhere, output)
        os.close(nowhere)
