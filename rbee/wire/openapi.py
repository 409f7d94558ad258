"""The OpenAPI document of a route table."""

from __future__ import annotations

import re
import typing
from typing import Any, Literal

from rbee.wire.codec import hints_of, is_shape, taken_apart
from rbee.wire.daemon import Problem
from rbee.wire.events import FeedEvent, Gap
from rbee.wire.jobs import Done, JobStarted
from rbee.wire.lines import Line
from rbee.wire.routes import Route
from rbee.wire.types import JobId, Limit, ModelName, Name, NewName, Sha256, TokenId, Word, WorkerId


def openapi(title: str, version: str, routes: tuple[Route[Any], ...]) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of a route table, as what json.dumps takes."""
    shapes: dict[str, Any] = {}
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, shapes)
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version, "license": {"name": "Apache-2.0"}},
        "paths": paths,
        "components": {"schemas": dict(sorted(shapes.items()))},
    }


def _operation(route: Route[Any], shapes: dict[str, Any]) -> dict[str, Any]:
    answers: dict[int, Any] = {}
    if route.success == 101:
        answers[101] = {}  # the connection continues with another protocol
    elif route.begins_job or route.answer is None:
        stream = _feed(shapes) if route.is_endless else _story(shapes)
        answers[200] = {"text/event-stream": {"schema": stream}}
    if route.answer is bytes:
        # Not JSON, so there is no schema.
        answers[200] = {kind: {"schema": {}} for kind in (route.media_type, route.or_media_type) if kind}
    elif route.answer is not None:
        answers[route.success] = {"application/json": {"schema": schema(route.answer, shapes)}}
    problem = {"application/problem+json": {"schema": schema(Problem, shapes)}}
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "responses": {
            **{str(code): {"description": "Success", "content": body} for code, body in answers.items()},
            **{str(code): {"description": "Refused", "content": problem} for code in route.problems},
            "default": {"description": "A problem", "content": problem},
        },
    }
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": schema(_PATH_FIELDS[name], shapes)}
        for name in re.findall(r"{(\w+)}", route.path)
    ]
    parameters += [
        {"name": name, "in": place, "required": False, "schema": schema(kind, shapes)}
        for place, fields in (("header", route.headers), ("query", route.query))
        for name, kind in fields
    ]
    if parameters:
        operation["parameters"] = parameters
    if route.body is not None:
        body = {"application/json": {"schema": schema(route.body, shapes)}}
        operation["requestBody"] = {"required": True, "content": body}
    return operation


def _story(shapes: dict[str, Any]) -> dict[str, Any]:
    # No type: OpenAPI 3.1 does not define whether a stream's schema is for the whole or for one event.
    for kind in (JobStarted, Line, Done, Problem):
        schema(kind, shapes)
    return {
        "description": "Server-sent events, the data of each a JSON object: 'job' (JobStarted) where the "
        "request began it, 'line' (Line) for each line, and at the end 'done' (Done) or 'error' (Problem)"
    }


def _feed(shapes: dict[str, Any]) -> dict[str, Any]:
    for kind in (FeedEvent, Gap):
        schema(kind, shapes)
    return {
        "description": "Server-sent events without an end, the data of each a JSON object: 'narrated' "
        "(FeedEvent) for each line; 'gap' (Gap) in place of events that are not kept any more. A block "
        "without data at the beginning has the id after which the feed continues. It ends when the queen "
        "stops"
    }


_PATH_FIELDS: dict[str, Any] = {
    "hive_id": Name, "job_id": JobId, "token_id": TokenId, "dial_id": JobId, "model": ModelName,
    "worker_id": WorkerId, "key": NewName, "fetch_id": Word, "sha256": Sha256,
}  # fmt: skip


def schema(kind: Any, shapes: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON Schema of an annotation; the shapes that it refers to are added to `shapes`."""
    kind, limit, is_optional = taken_apart(kind)
    if is_optional:
        return {"anyOf": [_schema(kind, limit, shapes), {"type": "null"}]}
    return _schema(kind, limit, shapes)


def _schema(kind: Any, limit: Limit | None, shapes: dict[str, Any]) -> dict[str, Any]:
    origin = typing.get_origin(kind)
    if origin is Literal:
        return {"type": "string", "enum": list(typing.get_args(kind))}
    if origin is tuple:
        bound = {"maxItems": limit.most} if limit else {}
        return {"type": "array", "items": schema(typing.get_args(kind)[0], shapes), **bound}
    if is_shape(kind):
        return _object_schema(kind, shapes)
    if kind is bool:
        return {"type": "boolean"}
    if kind in (int, float):
        bound = {"minimum": limit.least, "maximum": limit.most} if limit else {}
        return {"type": "integer" if kind is int else "number", **bound}
    if kind is dict:
        return {"type": "object"}
    text: dict[str, Any] = {"type": "string"}
    if limit:
        text |= {"minLength": limit.least, "maxLength": limit.most}
        text |= {"pattern": f"^{limit.pattern}$"} if limit.pattern else {}
        text |= {"format": limit.format} if limit.format else {}
    return text


def _object_schema(kind: Any, shapes: dict[str, Any]) -> dict[str, Any]:
    if kind.__name__ not in shapes:
        shapes[kind.__name__] = {}  # before its fields, for a shape that refers to itself
        shapes[kind.__name__] = {
            "type": "object",
            "properties": {name: schema(hint, shapes) for name, hint in hints_of(kind).items()},
            "required": [name for name in kind._fields if name not in kind._field_defaults],
        }
    return {"$ref": f"#/components/schemas/{kind.__name__}"}
