"""The application: what each address answers, behind the checks of security.py. Errors are JSON, `{"error": TEXT}`."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jaxcat.browser import files
from jaxcat.data.records import digest_of
from jaxcat.inference.classifier import Classifier
from jaxcat.serve import security
from jaxcat.serve.answers import TOP, Limits, Received, answer, received
from jaxcat.serve.corrections import Corrections
from jaxcat.serve.learning import Learning
from jaxcat.serve.refused import Refused
from jaxcat.serve.worker import Worker
from jaxcat.wording import is_printable

Result = TypeVar("Result")
PAGE = Path(__file__).parent / "page"
# The files of the page: where they lie and what they are. Nothing else is read from the disk for an address.
FILES = {
    **dict.fromkeys(("main.js", "server.js", "cards.js", "learning.js"), (PAGE, "text/javascript")),
    **dict.fromkeys(files.SCRIPTS, (files.FOLDER, "text/javascript")),
    **{"style.css": (PAGE, "text/css"), files.STYLE: (files.FOLDER, "text/css")},
}


class Served(NamedTuple):
    """What the application needs.

    Attributes:
        policy: who may ask.
        limits: of what is read.
        worker: computes.
        learning: the runs, one of which gives the answers.
        corrections: in the workdir of the first run.
    """

    policy: security.Policy
    limits: Limits
    worker: Worker
    learning: Learning
    corrections: Corrections

    async def with_image(self, request: Request, job: Callable[[Classifier, Received], Result]) -> Result:
        """The result of a job for the image in the body of a request, with the classifier in use.

        The image is decoded by the worker right before the job, so that one decoded image is in memory at a time.

        Raises:
            Refused: all places are taken, or the image cannot be read.
        """

        def decoded_first(content: bytes) -> Result:
            classifier = self.learning.used.classifier
            return job(classifier, received(content, config=classifier.config, limits=self.limits))

        with self.worker.place():
            return await self.worker.do(decoded_first, await body(request, limits=self.limits))


def application(served: Served, *, ended: Callable[[], object] = lambda: None) -> ASGIApp:
    """The whole application.

    Args:
        ended: called when the server ends.
    """

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        try:
            yield
        finally:
            ended()
            served.worker.close()

    app = Starlette(
        routes=[
            Route("/", _page(served)),
            Route("/healthz", _healthz),
            Route("/state", _state(served)),
            Route("/page/{name}", _file),
            Route("/predict", _predict(served), methods=["POST"]),
            Route("/corrections", _correct(served), methods=["POST"]),
            Route("/corrections/forget", _forget(served), methods=["POST"]),
            Route("/learn", _learn(served), methods=["POST"]),
            Route("/use", _use(served), methods=["POST"]),
        ],
        exception_handlers={HTTPException: _http_error, Refused: _refused, ClientDisconnect: _gone, Exception: _fault},
        lifespan=lifespan,
    )
    return Guard(app, served.policy)


class Guard:
    """Answers what security.py refuses, gives the cookie, and adds the headers to every answer."""

    def __init__(self, app: ASGIApp, policy: security.Policy):
        self._app, self._policy = app, policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return  # there are no WebSockets

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = [(name.encode(), value.encode()) for name, value in security.HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", ()), *own]}
            await send(message)

        try:
            await self._answer(scope)(scope, receive, with_headers)
        except Exception:  # a fault of this program, which `_fault` has answered
            traceback.print_exc(file=sys.stderr)

    def _answer(self, scope: Scope) -> ASGIApp:
        method, path, headers = scope["method"], scope["path"], scope["headers"]
        policy = self._policy
        if security.entered(policy, method=method, path=path, query=scope["query_string"]):
            if (found := security.foreign(policy, headers)) is None:
                cookie = {"set-cookie": security.cookie_header(policy)}
                return RedirectResponse("/", 303, headers=cookie)  # so that the token leaves the address bar
        else:
            found = security.refusal(policy, method=method, path=path, headers=headers)
        return self._app if found is None else error(found.status, found.reason)


def error(status: int, reason: str, **headers: str) -> JSONResponse:
    """The answer to a request that is refused or fails."""
    return JSONResponse({"error": reason}, status, headers=headers)


async def _http_error(_: Request, problem: Exception) -> Response:
    status = getattr(problem, "status_code", 500)
    words = {404: "there is nothing at this address", 405: "this address takes another method"}
    return error(status, words.get(status, "the request cannot be understood"))


async def _refused(_: Request, problem: Exception) -> Response:
    after = getattr(problem, "retry_after", None)
    return error(getattr(problem, "status", 400), str(problem), **({"retry-after": str(after)} if after else {}))


async def _fault(_: Request, problem: Exception) -> Response:
    return error(500, "an internal error; the window of the server says more")


async def _gone(_: Request, problem: Exception) -> Response:
    return error(400, "the body ended early")  # nobody reads it


async def body(request: Request, *, limits: Limits) -> bytes:
    """The body of a request.

    Raises:
        Refused: it is empty, too large, or does not come in time.
    """
    too_large = Refused(413, f"the image has more than the {limits.most_bytes:,} bytes that are read here")
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > limits.most_bytes:
        raise too_large
    parts, size = [], 0
    try:
        async with asyncio.timeout(limits.seconds):
            async for part in request.stream():
                size += len(part)
                if size > limits.most_bytes:
                    raise too_large
                parts.append(part)
    except TimeoutError:
        raise Refused(408, f"the image did not come within {limits.seconds:g} seconds") from None
    if not size:
        raise Refused(422, "there is no image: send its bytes as the body of the request")
    return b"".join(parts)


# addresses ------------------------------------------------------------------------------------------------------------

Handler = Callable[[Request], Awaitable[Response]]


async def _healthz(_: Request) -> Response:
    return JSONResponse({"status": "ok"})


async def _file(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in FILES:
        raise HTTPException(404)
    folder, kind = FILES[name]
    return Response((folder / name).read_bytes(), media_type=kind)


def _page(served: Served) -> Handler:
    pages = Environment(autoescape=True, undefined=StrictUndefined, loader=FileSystemLoader(PAGE))

    async def handler(_: Request) -> Response:
        name = served.learning.used.name
        text = pages.get_template("index.html").render(token=served.policy.token, name=name)
        return Response(text, media_type="text/html")

    return handler


def _state(served: Served) -> Handler:
    async def handler(_: Request) -> Response:
        return JSONResponse(await asyncio.to_thread(state, served))

    return handler


def state(served: Served) -> dict[str, Any]:
    """What the page shows besides answers, plain JSON."""
    classifier, described = served.learning.used.classifier, served.learning.described()
    try:
        count = len(served.corrections.labels())
    except Refused as error:  # such as a table that was edited by hand: the page answers all the same, and says so
        count, described["learning"]["problem"] = 0, str(error)
    return {
        "classes": list(classifier.classes),
        "corrections": count,
        "limits": {"bytes": served.limits.most_bytes, "pixels": served.limits.most_pixels},
        **described,
    }


def _predict(served: Served) -> Handler:
    async def handler(request: Request) -> Response:
        asked = request.query_params
        top = asked.get("top", str(TOP))
        if not (top.isdecimal() and len(top) <= len("10000") and 1 <= int(top) <= 10_000):
            raise Refused(422, "top must be a whole number from 1 on")
        view, heat = asked.get("view") == "1", asked.get("heat") == "1"

        def job(classifier: Classifier, image: Received) -> dict[str, Any]:
            return answer(classifier, image.pixels, top=int(top), view=view, heat=heat)

        return JSONResponse(await served.with_image(request, job))

    return handler


def _correct(served: Served) -> Handler:
    async def handler(request: Request) -> Response:
        asked = request.query_params
        if asked.get("agreed") != "1":
            raise Refused(403, "images are kept only after the person has agreed: agreed=1")
        if (label := asked.get("label", "")) not in served.learning.used.classifier.classes:
            raise Refused(422, "label must be one of the classes")
        if not is_printable(label):
            raise Refused(422, "this class has characters that a table of labels cannot have; rename it")

        def job(_: Classifier, image: Received) -> str:
            return served.corrections.keep(image.content, image.form, label, pixels=digest_of(image.pixels))

        return JSONResponse({"digest": await served.with_image(request, job), "label": label})

    return handler


def _forget(served: Served) -> Handler:
    async def handler(request: Request) -> Response:
        with served.worker.place():
            there = await served.worker.do(served.corrections.forget, request.query_params.get("digest", ""))
        return JSONResponse({"forgotten": there})

    return handler


def _learn(served: Served) -> Handler:
    async def handler(_: Request) -> Response:
        await asyncio.to_thread(served.learning.start)
        return JSONResponse({"started": True}, 202)

    return handler


def _use(served: Served) -> Handler:
    async def handler(request: Request) -> Response:
        served.learning.use(request.query_params.get("run", ""))
        return JSONResponse(await asyncio.to_thread(state, served))

    return handler
