"""The command line: one file a verb; parse, call, print. May import every room, heavy ones only in functions.

Exit codes: 0 done; 1 a bug of ours; 2 bad input; 3 a model or shortcut that would be unsound; 4 a run file,
checkpoint or data file that cannot be used; 5 a verification that failed; 6 a certificate an attack broke;
7 no worker of a cluster was left, or none that may answer;
130 and 143 interrupted by Ctrl-C and SIGTERM (everything finished is kept, the same command continues).
"""

from __future__ import annotations

import sys

from smoothcert import errors
from smoothcert.cli.application import app

EXIT_CODES: tuple[tuple[type[errors.SmoothcertError], int], ...] = (
    (errors.WorkersLost, 7),
    (errors.WorkerRefused, 7),
    (errors.CertificateBroken, 6),
    (errors.VerificationFailed, 5),
    (errors.RunFileError, 4),
    (errors.CheckpointError, 4),
    (errors.DataError, 4),
    (errors.UnsoundModel, 3),
    (errors.ModelOutputError, 3),
    (errors.SmoothcertError, 2),
)
_SIGNALS = {"SIGTERM": 143}


def exit_code(error: errors.SmoothcertError) -> int:
    """The documented exit status for an error."""
    if isinstance(error, errors.Interrupted):
        return _SIGNALS.get(error.given, 130)
    return next(code for kind, code in EXIT_CODES if isinstance(error, kind))


def main() -> None:
    """Entry point of ``smoothcert``: our errors become one message on stderr and a documented exit status."""
    try:
        app()
    except errors.SmoothcertError as error:
        from rich.console import Console

        word = "stopped" if isinstance(error, errors.Interrupted) else "error"
        Console(stderr=True).print(f"[bold red]{word}:[/]", end=" ")
        print(error, file=sys.stderr)
        sys.exit(exit_code(error))
    except BrokenPipeError:  # the reader of a pipe has seen enough
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        print(
            f"error: {error}. Check that the place exists and can be written, and has space", file=sys.stderr
        )
        sys.exit(4)
