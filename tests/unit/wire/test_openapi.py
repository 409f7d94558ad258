"""The OpenAPI document tells the truth about routes and shapes."""

from __future__ import annotations

import json
import math
import re
from datetime import datetime
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee.errors import BadInput
from rbee.uplink.frames import UplinkRoutes
from rbee.wire.codec import decode, encode
from rbee.wire.hives import AddHive
from rbee.wire.openapi import openapi, schema
from rbee.wire.routes import FleetRoutes, HiveRoutes, QueenRoutes
from tests.unit.wire_values import ANYTHING, WIRE_TYPES, values, wire_fields

NAMED = {"ids": lambda kind: getattr(kind, "__name__", None)}


def document(routes: tuple[Any, ...]) -> dict[str, Any]:
    return json.loads(json.dumps(openapi("rbee", "1", routes)))


TABLES = pytest.mark.parametrize(
    "routes",
    [QueenRoutes.ALL, FleetRoutes.ALL, UplinkRoutes.ALL, HiveRoutes.ALL],
    ids=["queen", "fleet", "uplink", "hive"],
)


@TABLES
def test_each_component_of_the_document_is_json_schema(routes: tuple[Any, ...]) -> None:
    components = document(routes)["components"]["schemas"]

    assert components
    for component in components.values():
        jsonschema.Draft202012Validator.check_schema(component)


@TABLES
def test_each_reference_of_the_document_leads_somewhere(routes: tuple[Any, ...]) -> None:
    told = document(routes)
    references = re.findall(r'"\$ref": "([^"]+)"', json.dumps(told))

    assert references
    for reference in references:
        place = told
        for step in reference.removeprefix("#/").split("/"):
            place = place[step]
        assert place["type"] == "object"


@TABLES
def test_the_document_has_every_route_and_describes_each_path_parameter(routes: tuple[Any, ...]) -> None:
    paths = document(routes)["paths"]

    for route in routes:
        operation = paths[route.path][route.method.lower()]
        described = {one["name"]: one for one in operation.get("parameters", ()) if one["in"] == "path"}
        assert set(described) == set(re.findall(r"{(\w+)}", route.path))
        assert all(one["required"] and one["schema"]["type"] == "string" for one in described.values())
        assert operation["operationId"] == route.name
        assert str(route.success) in operation["responses"]
        assert ("requestBody" in operation) == (route.body is not None)


def _pattern(validator: Any, pattern: str, value: Any, _schema: Any) -> Any:
    # As ECMA 262, which JSON Schema goes by, reads it: $ is the very end, not before a last newline.
    if isinstance(value, str) and not re.search(re.sub(r"\$$", r"\\Z", pattern), value):
        yield jsonschema.ValidationError(f"{value!r} does not match {pattern}")


_formats = jsonschema.FormatChecker(formats=())


@_formats.checks("date-time", raises=ValueError)
def _is_rfc3339(value: object) -> bool:
    if not isinstance(value, str):
        return True
    return bool(re.search("[Zz]$|:..$", value)) and datetime.fromisoformat(value.upper()).tzinfo is not None


def validator(kind: Any) -> Any:
    """A validator of the shape's own schema, as a reader of the document would make it."""
    shapes: dict[str, Any] = {}
    reference = schema(kind, shapes)
    checker = jsonschema.validators.extend(jsonschema.Draft202012Validator, {"pattern": _pattern})
    return checker(reference | {"components": {"schemas": shapes}}, format_checker=_formats)


@pytest.mark.parametrize("kind", WIRE_TYPES, **NAMED)
def test_what_is_encoded_is_valid_by_its_own_schema(kind: type[Any]) -> None:
    checker = validator(kind)

    @given(values(kind))
    def is_valid(shape: Any) -> None:
        checker.validate(json.loads(json.dumps(encode(shape))))

    is_valid()


def _is_one_that_json_schema_cannot_refuse(value: Any) -> bool:
    """A whole number with a fraction of 0, for JSON Schema an integer; and half of a character."""
    if isinstance(value, dict):
        return any(map(_is_one_that_json_schema_cannot_refuse, value.values()))
    if isinstance(value, list):
        return any(map(_is_one_that_json_schema_cannot_refuse, value))
    if isinstance(value, str):
        return re.search("[\ud800-\udfff]", value) is not None
    return isinstance(value, float) and (value.is_integer() or not math.isfinite(value))


@pytest.mark.parametrize("kind", WIRE_TYPES, **NAMED)
def test_decode_and_the_schema_agree_about_what_is_taken(kind: type[Any]) -> None:
    checker = validator(kind)
    outcomes = set()

    @given(st.data())
    def agree(data: st.DataObject) -> None:
        body = json.loads(json.dumps(encode(data.draw(values(kind)))))
        at = st.sampled_from(list(wire_fields(kind, body)))
        for place in data.draw(st.lists(at, max_size=2, unique_by=lambda one: one.path)):
            place.put(data.draw(ANYTHING | st.sampled_from(list(place.invalid_values()))))
            if isinstance(place.holder, dict) and data.draw(st.booleans()):
                del place.holder[place.key]
        try:
            decode(kind, body)
            is_taken = True
        except BadInput:
            is_taken = False
        outcomes.add(is_taken)
        is_valid = checker.is_valid(body)
        # What is taken is valid, and what is not valid is refused, always.
        assert is_valid or not is_taken
        assert is_taken or not is_valid or _is_one_that_json_schema_cannot_refuse(body)

    agree()
    assert outcomes == {True, False}


@pytest.mark.parametrize("body", [[], "localhost", 7, None, True])
def test_decode_and_the_schema_agree_that_only_an_object_is_taken(body: Any) -> None:
    assert not validator(AddHive).is_valid(body)
    with pytest.raises(BadInput, match="the body must be a JSON object"):
        decode(AddHive, body)
