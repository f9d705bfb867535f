"""What of arguments and return values is recorded where that is asked for: small ones, without secrets."""

import json
from typing import Any

from vmfsm import Secrets

from .request import Request

LARGEST = 2_000
"""Bytes of JSON."""


def sent_values(request: Request, secrets: Secrets) -> dict[str, Any]:
    """For the record of a command."""
    if not request.arguments or len(request.data) > LARGEST:
        return {}
    return {"values": json.loads(secrets.redact_message(request.data)).get("arguments", {})}


def received_values(reply: dict[str, Any]) -> dict[str, Any]:
    """For the record of its reply."""
    size = len(json.dumps(reply["return"]))
    return {"return": reply["return"]} if size <= LARGEST else {"bytes": size}
