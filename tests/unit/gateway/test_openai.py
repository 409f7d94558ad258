"""Errors and models in OpenAI's shape."""

from __future__ import annotations

import json

import pytest

from rbee.errors import BadInput, BadKey, NotPermitted, RbeeError, TooMany, UnknownModel
from rbee.gateway.openai import MESSAGES, error_content, event_of, model_object, models_object
from rbee.wire.models import OpenModel, OpenModels


@pytest.mark.parametrize(
    ("error", "kind", "code", "param"),
    [
        (BadInput("it is wrong", field="model"), "invalid_request_error", "bad_input", "model"),
        (BadKey("no"), "authentication_error", "invalid_api_key", None),
        (NotPermitted("no"), "permission_error", "not_permitted", None),
        (UnknownModel("no"), "invalid_request_error", "model_not_found", None),
        (TooMany("no"), "server_error", "too_many", None),
    ],
)
def test_an_error_has_the_members_that_clients_read(
    error: RbeeError, kind: str, code: str, param: str | None
) -> None:
    assert json.loads(error_content(error)) == {
        "error": {"message": error.message, "type": kind, "code": code, "param": param}
    }


def test_the_message_ends_with_the_cure() -> None:
    error = json.loads(error_content(TooMany("it is full", hint="Try again.")))

    assert error["error"]["message"] == "it is full. Try again."
    assert (error["error"]["detail"], error["error"]["hint"]) == ("it is full", "Try again.")


def test_anthropic_s_clients_find_what_they_read() -> None:
    content = error_content(TooMany("it is full"), MESSAGES)

    assert json.loads(content)["type"] == "error"
    assert event_of(content, MESSAGES) == b"event: error\ndata: " + content + b"\n\n"


def test_an_event_is_one_line_of_data() -> None:
    assert event_of(b'{"a":\n1}') == b'data: {"a": 1}\n\n'


def test_models_have_seconds() -> None:
    bee = {"id": "bee", "object": "model", "created": 7, "owned_by": "rbee"}

    assert model_object("bee", 7_900) == bee
    assert models_object(OpenModels((OpenModel("bee", 7_900),))) == {"object": "list", "data": [bee]}
