"""What all commands share: a parser of flags, exit statuses, and one line for any error that a user can cause."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
import traceback
from collections.abc import Callable, Sequence

from jaxcat.errors import JaxcatError


class ArgumentParser(argparse.ArgumentParser):
    """An argparse parser whose errors are one line; the exit status is 2, as argparse's own."""

    def error(self, message: str):
        self.exit(2, f"{self.prog}: {message} (see --help)\n")


def add_process_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags by which the processes of one run find each other; see `processes.initialize_distributed`."""
    several = parser.add_argument_group("several processes", "needed only if JAX does not detect the cluster itself")
    several.add_argument("--coordinator", default="", metavar="HOST:PORT", help="address of process 0; or auto")
    several.add_argument("--num-processes", type=int, metavar="N", help="how many there are")
    several.add_argument("--process-id", type=int, metavar="N", help="which one this is, from 0")


def run(main: Callable[[Sequence[str]], int | None], argv: Sequence[str] | None = None) -> None:
    """Call `main(arguments)` and end this process with the status that it returns or that its error carries."""
    logging.getLogger("absl").addFilter(_not_about_items)
    together = False  # whether the other processes of this run end too
    try:
        status = main(sys.argv[1:] if argv is None else argv) or 0
        together = True
    except JaxcatError as error:
        print(f"error: {error}", file=sys.stderr)
        status = error.exit_status
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = 130
    except BrokenPipeError:  # the reader of our output, such as `head`, has seen enough
        with contextlib.suppress(OSError):
            sys.stdout.close()
        status = 0
    except Exception as error:
        processes = sys.modules.get("jaxcat.system.processes")  # a command without JAX has no other process to lose
        reason = processes and processes.lost_process(error)
        if reason:
            print(
                f"error: another process of this run has ended or cannot be reached ({reason}); its own output says "
                "why. The same command in every process continues from the last checkpoint",
                file=sys.stderr,
            )
        elif _one_of_several():
            traceback.print_exc()
        else:
            raise
        status = 1
    if not together and _one_of_several():
        # JAX would wait for the others at exit, and they for this one; the closed connections tell them at once
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):  # the reader of our output may have gone
                stream.flush()
        os._exit(status)
    sys.exit(status)


def _not_about_items(record: logging.LogRecord) -> bool:
    """False for Orbax's warning that a part of a checkpoint lacks a file that only whole checkpoints have."""
    return not record.getMessage().startswith("Metadata file does not exist")


def _one_of_several() -> bool:
    jax = sys.modules.get("jax")
    return jax is not None and jax.distributed.is_initialized()
