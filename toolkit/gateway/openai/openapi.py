"""The OpenAPI document, made from the types that requests are checked with and answers made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from toolkit.gateway.openai.classes import HEADER
from toolkit.gateway.openai.errors import ErrorBody
from toolkit.gateway.openai.requests import ChatCompletionRequest, CompletionRequest
from toolkit.gateway.openai.responses import (
    ChatCompletion,
    ChatCompletionChunk,
    ModelCard,
    ModelList,
    Status,
    TextCompletion,
    TextCompletionChunk,
)

_REF = "#/components/schemas/{model}"
_REQUESTS = (ChatCompletionRequest, CompletionRequest)
_ANSWERS = (
    ModelCard,
    ModelList,
    ChatCompletion,
    ChatCompletionChunk,
    TextCompletion,
    TextCompletionChunk,
    Status,
    ErrorBody,
)
_ERRORS = {
    "400": "The request is wrong, or asks for what this model cannot do.",
    "401": "No API key that is known here.",
    "403": "The key may not do this.",
    "404": "No such model.",
    "408": "The body did not come in time.",
    "413": "The body is too large.",
    "415": "The body is not JSON by its content type.",
    "429": "Too much at the moment: of this key, or of all. Retry-After says when to come back.",
    "500": "A defect of the gateway.",
    "502": "The engine failed.",
    "503": "Nothing can serve it now. Retry-After says when to come back.",
    "504": "The time that the request was given has passed.",
}
_GENERATING = tuple(_ERRORS)
_READING = ("401", "404")
_REQUEST_ID = {
    "name": "x-request-id",
    "in": "header",
    "description": "Comes back with the answer; another is made up unless it is 1 to 128"
    " letters, digits, dots, colons, dashes or underscores.",
    "schema": {"type": "string"},
}
_CLASS = {
    "name": HEADER,
    "in": "header",
    "description": "A request class of the deployment; service_tier goes before it.",
    "schema": {"type": "string"},
}
_ANSWER_HEADERS = {"x-request-id": {"description": "Of the request.", "schema": {"type": "string"}}}
_RETRY_HEADERS = {
    "retry-after": {"description": "Whole seconds.", "schema": {"type": "integer"}},
    "retry-after-ms": {"description": "Milliseconds.", "schema": {"type": "integer"}},
}


def document(version: str, models: Sequence[str], *, keys: bool) -> dict[str, Any]:
    """The whole document.

    Args:
        version: Of the toolkit.
        models: Names of those that are served.
        keys: Whether callers have to show one.
    """
    answers = [(model, "serialization") for model in _ANSWERS]
    requests = [(model, "validation") for model in _REQUESTS]
    _, schemas = models_json_schema([*requests, *answers], ref_template=_REF)  # type: ignore[list-item]
    components: dict[str, Any] = {"schemas": schemas["$defs"]}
    for request in _REQUESTS:
        components["schemas"][request.__name__]["properties"]["model"]["enum"] = list(models)
    whole: dict[str, Any] = {
        "openapi": "3.2.0",
        "info": {
            "title": "Gateway",
            "version": version,
            "description": "OpenAI-compatible API. Fields that it does not know are ignored;"
            " known ones that it cannot keep are refused by name.",
        },
        "paths": _paths(models),
        "components": components,
    }
    if keys:
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        for path, operations in whole["paths"].items():
            if path.startswith("/v1/"):
                for operation in operations.values():
                    operation["security"] = [{"key": []}]
    return whole


def _paths(models: Sequence[str]) -> dict[str, Any]:
    return {
        "/v1/models": {"get": _get("listModels", "All models.", ModelList, _READING[:1])},
        "/v1/models/{model}": {
            "get": _get("retrieveModel", "One model.", ModelCard, _READING, (_model(models),))
        },
        "/v1/chat/completions": {
            "post": _post(
                "createChatCompletion",
                "Go on with a conversation.",
                ChatCompletionRequest,
                ChatCompletion,
                ChatCompletionChunk,
            )
        },
        "/v1/completions": {
            "post": _post(
                "createCompletion",
                "Go on with a text.",
                CompletionRequest,
                TextCompletion,
                TextCompletionChunk,
            )
        },
        "/health": {"get": _get("health", "Whether the process lives.", Status)},
        "/ready": {
            "get": _with_error(
                _get("ready", "Whether every model takes requests.", Status),
                "503",
                "Not yet, or not any more.",
                Status,
            )
        },
        "/openapi.json": {"get": _self()},
    }


def _model(names: Sequence[str]) -> dict[str, Any]:
    return {
        "name": "model",
        "in": "path",
        "required": True,
        "description": "The model's name.",
        "schema": {"type": "string", "enum": list(names)},
    }


def _get(
    name: str,
    summary: str,
    answer: type[BaseModel],
    errors: Sequence[str] = (),
    parameters: Sequence[dict[str, Any]] = (),
) -> dict[str, Any]:
    return {
        "operationId": name,
        "summary": summary,
        "parameters": [*parameters, _REQUEST_ID],
        "responses": {"200": _response("Found.", answer), **_errors(errors)},
    }


def _post(
    name: str,
    summary: str,
    request: type[BaseModel],
    answer: type[BaseModel],
    chunk: type[BaseModel],
) -> dict[str, Any]:
    found = _response("The answer, or with `stream` its events up to `[DONE]`.", answer)
    found["content"]["text/event-stream"] = {"itemSchema": _event(chunk)}
    return {
        "operationId": name,
        "summary": summary,
        "parameters": [_REQUEST_ID, _CLASS],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _schema(request)}},
        },
        "responses": {"200": found, **_errors(_GENERATING)},
    }


def _event(chunk: type[BaseModel]) -> dict[str, Any]:
    """One server-sent event, as OpenAPI 3.2 describes those; the last one says ``[DONE]``."""
    told = {"anyOf": [_schema(chunk), _schema(ErrorBody)]}
    return {
        "type": "object",
        "required": ["data"],
        "properties": {
            "data": {
                "type": "string",
                "anyOf": [
                    {"const": "[DONE]"},
                    {"contentMediaType": "application/json", "contentSchema": told},
                ],
            }
        },
    }


def _self() -> dict[str, Any]:
    return {
        "operationId": "openapi",
        "summary": "This document.",
        "parameters": [_REQUEST_ID],
        "responses": {
            "200": {
                "description": "OpenAPI 3.2.",
                "headers": _ANSWER_HEADERS,
                "content": {"application/json": {"schema": {"type": "object"}}},
            }
        },
    }


def _errors(statuses: Sequence[str]) -> dict[str, Any]:
    found = {status: _response(_ERRORS[status], ErrorBody) for status in statuses}
    for status in ("429", "503"):
        if status in found:
            found[status]["headers"] = _ANSWER_HEADERS | _RETRY_HEADERS
    return found


def _with_error(
    operation: dict[str, Any], status: str, description: str, answer: type[BaseModel]
) -> dict[str, Any]:
    operation["responses"][status] = _response(description, answer)
    return operation


def _response(description: str, answer: type[BaseModel]) -> dict[str, Any]:
    return {
        "description": description,
        "headers": _ANSWER_HEADERS,
        "content": {"application/json": {"schema": _schema(answer)}},
    }


def _schema(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _REF.format(model=model.__name__)}
