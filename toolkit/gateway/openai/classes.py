"""Which request class a request belongs to."""

from __future__ import annotations

from toolkit.gateway.guard.admission import Caller
from toolkit.gateway.openai.served import ServedModel
from toolkit.gateway.work import GatewayError

HEADER = "x-request-class"
_DEFAULTS = (None, "", "auto", "default")


def request_class(
    model: ServedModel, service_tier: str | None, header: str | None, caller: Caller
) -> str:
    """The class that the body names, or else the header, the key, or the deployment's first.

    A key that stands for a class speaks for no other.

    Raises:
        GatewayError: 400 for a class that the deployment does not have, 403 for one that is not
            the key's.
    """
    for named, where in ((service_tier, "service_tier"), (header, HEADER)):
        # A deployment may well call a class "default".
        if named in _DEFAULTS and named not in model.classes:
            continue
        assert named is not None
        if named not in model.classes:
            raise GatewayError(
                400,
                f"Invalid value for '{where}': {model.name} has the classes"
                f" {', '.join(model.classes)}.",
                code="unknown_request_class",
                param=where,
            )
        if caller.request_class is not None and named != caller.request_class:
            raise GatewayError(
                403,
                f"This API key is for requests of class {caller.request_class} only.",
                code="request_class_not_allowed",
                param=where,
            )
        return named
    if caller.request_class in model.classes:
        return str(caller.request_class)
    return model.classes[0]
