"""Who may ask, and the shape of every answer: Host and Origin checks, plain sentences for errors, safe headers.

The admin address is for this machine, but a browser on this machine runs pages from anywhere. A page that points its
own name at 127.0.0.1 (DNS rebinding) is told apart by its Host, a form posted across sites by its Origin. There are no
CORS headers, so no page can read an answer.
"""

from __future__ import annotations

import ipaddress
import logging
from typing import Final

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from sidecar.admin.text import printable

log = logging.getLogger("sidecar.admin")

_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
}


def answer(text: str, status: int = 200) -> web.Response:
    """Plain text, ending in a line break."""
    return web.Response(text=text if text.endswith("\n") else f"{text}\n", status=status)


@web.middleware
async def plain_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error as one sentence, every answer with safe headers. Outermost: it must see what the others raise."""
    try:
        response = await handler(request)
    except web.HTTPException as error:
        response = answer(_sentence(request, error), error.status)
        if hdrs.ALLOW in error.headers:
            response.headers[hdrs.ALLOW] = error.headers[hdrs.ALLOW]
    except Exception:
        log.exception("the admin API failed to answer %s %s", request.method, printable(request.path))
        response = answer("This is a bug in the sidecar; its log has the details. Traffic goes on.", 500)
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    return response


def _sentence(request: web.Request, error: web.HTTPException) -> str:
    path = printable(request.path)
    if isinstance(error, web.HTTPNotFound):
        return f"There is nothing at {path}; GET / lists what there is."
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = " or ".join(sorted(error.allowed_methods - {hdrs.METH_HEAD}))
        why = " because it changes something" if allowed == hdrs.METH_POST else ""
        return f"{path} takes {allowed}{why}, not {printable(request.method)}."
    return error.text or error.reason


def local_callers(bound_host: str) -> Middleware:
    """Refuse what a page of another site could have sent."""

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        host = request.headers.getall(hdrs.HOST, [])
        if len(host) != 1 or not is_local_name(host[0], bound_host):
            shown = printable(host[0], 100) if host else ""
            log.warning("the admin API refused a request for host %r: it answers to addresses and localhost", shown)
            return answer(f"The Host {shown!r} is not this sidecar's; ask by address or as localhost.", 403)
        if request.method not in (hdrs.METH_GET, hdrs.METH_HEAD) and hdrs.ORIGIN in request.headers:
            log.warning("the admin API refused a %s that a web page sent", request.method)
            return answer("A request that changes something may not come from a web page (it carries an Origin).", 403)
        return await handler(request)

    return check


def is_local_name(host: str, bound_host: str) -> bool:
    """Whether a Host field names this machine: an address, localhost, or the name in `admin.listen`.

    An address of any kind is safe: rebinding needs a name that somebody else's DNS answers for.
    """
    name = _without_port(host)
    if name == "localhost" or name.endswith(".localhost") or (name != "" and name == bound_host.lower()):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _without_port(host: str) -> str:
    name = host.strip().lower()
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name.partition(":")[0].rstrip(".")
