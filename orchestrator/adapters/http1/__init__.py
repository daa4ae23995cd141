"""HTTP/1.1, both ends, on llhttp and asyncio protocols (docs/adr/0002-http-stack.md)."""

from orchestrator.adapters.http1.client import UpstreamError, UpstreamResponse
from orchestrator.adapters.http1.content_codings import ContentError, accepted_codings, content_coding
from orchestrator.adapters.http1.exchange import Flow, Request, Response
from orchestrator.adapters.http1.multipart import form_field
from orchestrator.adapters.http1.pool import UpstreamPool
from orchestrator.adapters.http1.server import HttpServer
from orchestrator.adapters.http1.wire import HOP_BY_HOP, Headers, HttpLimits, connection_options, encode_head, first

__all__ = [
    "HOP_BY_HOP",
    "ContentError",
    "Flow",
    "Headers",
    "HttpServer",
    "HttpLimits",
    "Request",
    "Response",
    "UpstreamError",
    "UpstreamPool",
    "UpstreamResponse",
    "accepted_codings",
    "connection_options",
    "content_coding",
    "encode_head",
    "first",
    "form_field",
]
