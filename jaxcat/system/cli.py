"""What all commands share: a parser of flags, exit statuses, and one-line messages for errors of the user."""

from __future__ import annotations

import argparse
import contextlib
import errno
import gc
import logging
import os
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from jaxcat.errors import ConfigError, JaxcatError
from jaxcat.system import paths
from jaxcat.system.console import accept_any_text
from jaxcat.wording import without_controls


class ArgumentParser(argparse.ArgumentParser):
    """An argparse parser that reports an error in one line; the exit status is 2, as in argparse."""

    def error(self, message: str):
        if "expected one argument" in message or "expected at least one argument" in message:
            message += "; a value that begins with - is written --FLAG=-VALUE"
        self.exit(2, f"{self.prog}: {message} (see --help)\n")


def path(text: str) -> Path:
    """The type of a flag that takes a path; see `paths.typed`."""
    return _checked(paths.typed, text)


def path_as_typed(text: str) -> Path:
    """The same for a path that is shown in the output: a relative one stays relative."""
    return _checked(paths.expanded, text)


def _checked(read: Callable[[str], Path], text: str) -> Path:
    try:
        return read(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def add_process_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags with which the processes of one run find each other; see `processes.initialize_distributed`."""
    several = parser.add_argument_group("several processes", "needed only if JAX does not detect the cluster itself")
    several.add_argument("--coordinator", default="", metavar="HOST:PORT", help="address of process 0; auto: ask JAX")
    several.add_argument("--num-processes", type=int, metavar="N", help="number of processes")
    several.add_argument("--process-id", type=int, metavar="N", help="number of this process, from 0")


def run(main: Callable[[Sequence[str]], int | None], argv: Sequence[str] | None = None) -> None:
    """Calls `main(argv)` and exits with the status that it returns or that belongs to the error it raises."""
    gc.set_threshold(100_000, 20, 20)  # with Python's 700, imports and tracing take a tenth longer
    os.environ["MPLBACKEND"] = "agg"  # a notebook's backend may be inherited, and commands draw to files only
    if os.path.expanduser("~") == "~":  # Keras, which TensorFlow imports, would make a folder of that name
        os.environ.setdefault("KERAS_HOME", os.path.join(tempfile.gettempdir(), ".keras"))
    accept_any_text(sys.stdout, sys.stderr)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")  # of odd metadata, without the file's name
    together = False  # whether the other processes of this run end normally too
    try:
        with _warnings_shown():
            status = main(sys.argv[1:] if argv is None else argv) or 0
            if sys.stdout:  # None if it was closed
                sys.stdout.flush()
        together = True
    except JaxcatError as error:
        print(f"error: {without_controls(str(error))}", file=sys.stderr)
        status = error.exit_status
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = 130
    except BrokenPipeError:  # the reader of our output, such as `head`, has closed the pipe
        with contextlib.suppress(OSError):
            sys.stdout.close()
        status = 0
    except Exception as error:
        processes = sys.modules.get("jaxcat.system.processes")  # None in a command without JAX
        reason = processes and processes.lost_process(error)
        if reason:
            print(
                f"error: another process of this run has ended or cannot be reached ({reason}); its own output says "
                "why. To continue from the last checkpoint, start every process again with the same command",
                file=sys.stderr,
            )
        elif isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            print(f"error: {error.filename or 'the output'} cannot be written: {error.strerror}", file=sys.stderr)
            with contextlib.suppress(OSError):
                sys.stdout.close()
        elif _one_of_several():
            traceback.print_exc()
        else:
            raise
        status = 1
    if not together and _one_of_several():
        # at exit, JAX and the other processes would wait for each other; os._exit closes the connections, so they end
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):  # the reader of our output may have gone
                stream.flush()
        os._exit(status)
    gc.freeze()  # else Python looks through all objects of all libraries once more, for 0.3 s, to free their memory
    sys.exit(status)


@contextlib.contextmanager
def _warnings_shown() -> Iterator[None]:
    """Shows jaxcat's messages as errors are shown, `warning: …` on standard error, whatever other libraries set up."""
    logger = logging.getLogger("jaxcat")
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter())
    logger.addHandler(handler)
    logger.propagate, before = False, logger.propagate
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = before


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return f"{record.levelname.lower()}: {without_controls(super().format(record))}"


def _one_of_several() -> bool:
    jax = sys.modules.get("jax")
    return jax is not None and jax.distributed.is_initialized()
