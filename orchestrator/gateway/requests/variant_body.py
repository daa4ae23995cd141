"""Rewrites the body of a request for a variant of a model. Every other body goes on byte for byte."""

from __future__ import annotations

import json

from orchestrator.core.profile.variants import Variant
from orchestrator.gateway.errors import GatewayError

_BOM = b"\xef\xbb\xbf"


def rewritten(body: bytes, variant: Variant) -> bytes:
    """Return the body as the variant makes it.

    :param body: a JSON object, as `forward.peek` has read it
    :raises GatewayError: `invalid_json` for what that reader has passed over
    """
    try:
        document = json.loads(body.removeprefix(_BOM))
    except (ValueError, RecursionError) as error:
        raise GatewayError("invalid_json", f"the body is no valid JSON: {error}") from None

    return json.dumps(variant.applied(document)).encode()
