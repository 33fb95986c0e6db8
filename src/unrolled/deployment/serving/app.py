"""The application: a page, the routes of the network's kind, and errors as JSON with a sentence."""

import logging
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import torch

from unrolled.checkpoint import Bundle
from unrolled.deployment.serving.guard import Guard
from unrolled.deployment.serving.kinds import kind_of
from unrolled.deployment.serving.limits import ServingLimits
from unrolled.deployment.serving.service import Refusal, Service, sentence
from unrolled.wording import counted

PAGE = Path(__file__).parent / "page"


def create_app(
    bundle: Bundle,
    *,
    limits: ServingLimits = ServingLimits(),  # immutable
    name: str = "",
    host: str = "127.0.0.1",
    generator: torch.Generator | None = None,
) -> Any:
    """Return the FastAPI application of a page for a network.

    Args:
        bundle: a bundle from `load_bundle`.
        limits: the limits of requests.
        name: name of the checkpoint, shown on the page.
        host: the address or name that the server listens on; requests to other names are refused.
        generator: random number generator on the network's device; a new one by default.

    Raises:
        ValueError: a network that has no page; FastAPI is not installed.
    """
    require("fastapi")
    from fastapi import APIRouter, FastAPI
    from starlette.responses import HTMLResponse
    from starlette.staticfiles import StaticFiles

    kind = kind_of(bundle)
    service = Service(bundle, limits, torch.Generator() if generator is None else generator)
    about = {"kind": kind.name, "title": kind.title, "checkpoint": name, "facts": _facts(bundle)}
    about |= {"limits": vars(limits), "settings": kind.settings(bundle)}
    app = FastAPI(title=f"unrolled: {kind.title}", docs_url=None, redoc_url=None)  # their pages load from elsewhere
    routes = APIRouter(prefix="/api")
    routes.add_api_route("/network", lambda: about, methods=["GET"])
    kind.add_routes(routes, service)
    app.include_router(routes)
    page = _page(kind.name, kind.title)
    app.add_api_route("/", lambda: HTMLResponse(page), methods=["GET"], include_in_schema=False)
    app.mount("/page", StaticFiles(directory=PAGE))
    _answer_errors(app)
    app.add_middleware(Guard, limits=limits, host=host)
    return app


def try_out(bundle: Bundle, limits: ServingLimits, generator: torch.Generator) -> None:
    """Make a small prediction, so that kernels are compiled and modules are loaded before the first request.

    Args:
        bundle: see `create_app`.
        limits: the limits of requests. None is of time, since compiling takes its own.
        generator: random number generator on the network's device, not that of the requests.

    Raises:
        Exception: whatever the prediction raises.
    """
    kind_of(bundle).trial(Service(bundle, limits, generator))


def require(*packages: str) -> None:
    """Check that packages of the extra `serve` are installed.

    Raises:
        ValueError: one is missing.
    """
    from importlib.util import find_spec

    for package in packages:
        if find_spec(package) is None:
            raise ValueError(f"serving needs {package}: pip install 'unrolled[serve]'")


def _page(kind: str, title: str) -> str:
    shell = Template((PAGE / "index.html").read_text(encoding="utf-8"))
    content = (PAGE / f"{kind}.html").read_text(encoding="utf-8")
    return shell.substitute(title=escape(title), kind=kind, content=content)


def _facts(bundle: Bundle) -> list[str]:
    size = sum(parameter.numel() for parameter in bundle.network.parameters())
    chosen: Any = bundle.info.get("choices")
    task = chosen.get("task") if isinstance(chosen, dict) else None
    data = bundle.info.get("data")
    return [
        type(bundle.network).__name__,
        counted(size, "parameter"),
        *([f"task {task}"] if isinstance(task, str) else []),
        *([data] if isinstance(data, str) and data else []),
    ]


def _answer_errors(app: Any) -> None:
    """Make each error a JSON object with a sentence."""
    from fastapi.exceptions import RequestValidationError
    from starlette.exceptions import HTTPException
    from starlette.responses import JSONResponse

    def answer(status: int, reason: str, headers: Any = None) -> JSONResponse:
        return JSONResponse({"error": reason}, status, headers)

    async def refusal(request: Any, error: Refusal) -> JSONResponse:
        after = {} if error.retry_after is None else {"retry-after": str(error.retry_after)}
        return answer(error.status, error.reason, after)

    async def mistake(request: Any, error: ValueError) -> JSONResponse:
        return answer(400, sentence(error))

    async def invalid(request: Any, error: RequestValidationError) -> JSONResponse:
        return answer(422, "; ".join(map(_told, error.errors())))

    async def http(request: Any, error: HTTPException) -> JSONResponse:
        detail = error.detail
        if error.status_code in (404, 405):  # what the routing says
            detail = f"there is no {request.method} {request.scope['path']} here"
        return answer(error.status_code, detail, error.headers)

    async def unexpected(request: Any, error: Exception) -> JSONResponse:
        logging.getLogger(__name__).error("a request failed", exc_info=error)
        return answer(500, "the server made a mistake; its terminal says more")

    handlers: dict[Any, Any] = {Refusal: refusal, RequestValidationError: invalid, HTTPException: http}
    for kind, handler in {**handlers, ValueError: mistake, OSError: mistake, Exception: unexpected}.items():
        app.add_exception_handler(kind, handler)


def _told(error: Any) -> str:
    if error["type"] == "json_invalid":
        return "the request is not valid JSON"
    place = [str(part) for part in error["loc"][1:]]
    return f"{'.'.join(place) or 'the request'}: {error['msg'][:1].lower()}{error['msg'][1:]}"
