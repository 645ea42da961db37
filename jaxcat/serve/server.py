"""Starts the server: opens the run, takes a port, prints the address, and answers until it is stopped."""

from __future__ import annotations

import contextlib
import os
import shlex
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import uvicorn

from jaxcat.bottlenecks.engines.names import AUTO
from jaxcat.errors import CacheError, ConfigError, one_line
from jaxcat.inference.classifier import Classifier, load
from jaxcat.serve import security
from jaxcat.serve.answers import Limits
from jaxcat.serve.app import Served, application
from jaxcat.serve.corrections import Corrections
from jaxcat.serve.learning import Learning, Run
from jaxcat.serve.worker import MOST_WAITING, Worker
from jaxcat.system.console import Console, said_if_long
from jaxcat.system.files import NoHomeError, cache_dir, write_errors_as

MOST_CONNECTIONS = 256  # at a time; most of them wait between requests. Further ones get 503
IDLE_SECONDS = 5  # after which a connection without a request is closed


def serve(
    workdir: Path,
    *,
    host: str,
    port: int,
    step: str | int,
    engine: str,
    limits: Limits,
    calibrated: bool = False,
    token: str = "",
) -> int:
    """Serves the classifier in `workdir` until the process is interrupted.

    Args:
        host: name or address to listen on.
        port: to listen on; 0: a free one.
        step, engine, calibrated: see `inference.classifier.load`.
        token: a chosen one; "": a new one.

    Returns:
        The exit status, 0.

    Raises:
        ConfigError: the port cannot be used.
        JaxcatError: the run cannot be opened.
    """
    console = Console()
    with listening(host, port) as listener:
        policy = policy_of(host, listener.getsockname()[1], token)
        with said_if_long("reading the run", console=console):
            served = served_of(
                workdir, policy, step=step, engine=engine, limits=limits, calibrated=calibrated, console=console
            )
        with token_file(policy) as kept:
            say(console, served, host=host, kept=kept)
            app = application(served, ended=lambda: kept.unlink(missing_ok=True))
            with contextlib.suppress(KeyboardInterrupt):  # that is how it is stopped
                uvicorn.Server(settings(app)).run(sockets=[listener])
            if served.learning.running:
                console.print("waiting until the head is solved …")
                with contextlib.suppress(KeyboardInterrupt):
                    served.learning.join()
    console.print("stopped")
    return 0


def policy_of(host: str, port: int, token: str = "") -> security.Policy:
    """What a server that listens there accepts, with a new token if none was chosen."""
    loopback = security.is_loopback(host)
    names = () if loopback else (socket.gethostname(), socket.getfqdn())
    return security.Policy(
        token or security.new_token(), port, security.own_names(host, names), any_address=not loopback
    )


def served_of(
    workdir: Path,
    policy: security.Policy,
    *,
    step: str | int = "best",
    engine: str = AUTO,
    limits: Limits | None = None,
    calibrated: bool = False,
    most_waiting: int = MOST_WAITING,
    console: Console | None = None,
) -> Served:
    """What the application needs, with the run opened and its programs compiled."""
    console = console or Console(quiet=True)

    def opened(folder: Path, step: str | int = "best") -> Classifier:
        classifier = load(folder, step=step, engine=engine, keep_compiled=True, calibrated=calibrated)
        classifier.engine.computation(1, console=console)
        size = classifier.config.data.image_size
        classifier.predict([np.zeros((size, size, 3), np.uint8)])  # compiles, so that the first answer is quick
        return classifier

    corrections = Corrections(workdir)
    learning = Learning(Run(workdir, opened(workdir, step)), corrections, open_run=opened)
    return Served(policy, limits or Limits(), Worker(most_waiting), learning, corrections)


def settings(app) -> uvicorn.Config:
    """How Uvicorn runs the application: headers of proxies are not trusted, and connections are bounded."""
    return uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="on",
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=3,
    )


@contextlib.contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that listens on the port. Raises ConfigError if it cannot."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        listener = socket.create_server(address[:2], family=family, backlog=128)
    except (OSError, OverflowError, UnicodeError) as error:
        raise ConfigError(
            f"--host {host} --port {port}: {one_line(error)}; give another port, or --port 0 for one that is free"
        ) from error
    with listener:
        yield listener


@contextlib.contextmanager
def token_file(policy: security.Policy) -> Iterator[Path]:
    """Writes the token for programs into a file that only this user can read; removes it when the block ends.

    It is in the cache, CACHE/serve/PORT.token. Raises CacheError if it cannot be written.
    """
    try:
        folder = cache_dir() / "serve"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except (OSError, NoHomeError):
        folder = Path(tempfile.mkdtemp(prefix="jaxcat-"))  # only this user can read it
    path = folder / f"{policy.port}.token"
    with write_errors_as(CacheError, path, "; set JAXCAT_CACHE to another folder"):
        path.unlink(missing_ok=True)  # of a server that was killed
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(policy.token)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def read_token(path: Path) -> str:
    """The token in a file of the user's.

    Raises:
        ConfigError: it cannot be read, others may read it, or the token is too weak.
    """
    where = f"--token-file {path}"
    try:
        if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise ConfigError(f"{where}: others may read it: chmod 600 {shlex.quote(str(path))}")
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{where}: cannot be read: {one_line(error)}") from error
    if problem := security.chosen_token_problem(token):
        raise ConfigError(f"{where}: the token {problem}; make one with {MAKE_TOKEN}")
    return token


MAKE_TOKEN = "(umask 077; openssl rand -hex 32 > FILE)"


def check_host(host: str, *, token: bool) -> None:
    """Raises ConfigError if other machines could reach the server and no token was chosen; says what that means."""
    if security.is_loopback(host) or token:
        return
    raise ConfigError(
        f"--host {host}: other machines could then reach this server. Whoever has the token sees the classifier's "
        "answers, and can send images that the server keeps in the workdir. Nothing is encrypted, "
        "so whoever sees the network's traffic sees the token too; browsers give no camera to such a page. If that is "
        f"meant, choose the token yourself: --token-file FILE, made with {MAKE_TOKEN}"
    )


def say(console: Console, served: Served, *, host: str, kept: Path) -> None:
    """Says where the page is, and how programs ask."""
    policy = served.policy
    name = "127.0.0.1" if host in ("0.0.0.0", "::", "") else host
    address = f"http://{f'[{name}]' if ':' in name else name}:{policy.port}/"
    run = served.learning.used
    console.print(f"{run.workdir}: open this address in a browser; whoever has it can use the page")
    console.print(f"\n    {address}?token={policy.token}\n")
    if not security.is_loopback(host):
        console.print(
            f"warning: other machines reach this server (--host {host}), and nothing is encrypted: whoever sees the "
            "network's traffic sees the token and the images"
        )
    console.print(
        f"programs: the token is in {kept}, which only you can read\n"
        f'    curl -H "Authorization: Bearer $(cat {shlex.quote(str(kept))})" --data-binary @IMAGE {address}predict\n'
        "Ctrl-C ends it"
    )
