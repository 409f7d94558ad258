"""The routes for the gateway."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from rbee.wire.keys import CreateKey
from tests.integration.queen.serving.serving_hive import a_queen
from tests.integration.unix_http import raw, request

pytestmark = pytest.mark.deadline(20)


async def test_a_lease_needs_a_connection_of_its_own(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played:
        answer = await raw(played.path, request("GET", "/v1/lease"))

        assert answer.status == 400
        assert answer.json["hint"] == "Send: Connection: Upgrade, and Upgrade: rbee-lease/1"


async def test_the_models_are_those_that_are_served_and_that_the_key_is_for(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played:
        await played.model("wasp")
        await played.model("off", is_served=False)
        key = await played.queen.library.keys.create(CreateKey("ada", ("wasp", "off")), {})
        sent = hashlib.sha256(key.text.encode()).hexdigest()
        all_of_them = await raw(played.path, request("GET", "/v1/open-models"))
        of_key = await raw(played.path, request("GET", "/v1/open-models", RBEE_Key=sent))
        of_nobody = await raw(played.path, request("GET", "/v1/open-models", RBEE_Key="0" * 64))
        no_key = await raw(played.path, request("GET", "/v1/open-models", RBEE_Key="x"))

        assert [model["name"] for model in all_of_them.json["models"]] == ["bee", "wasp"]
        assert [model["name"] for model in of_key.json["models"]] == ["wasp"]
        assert (of_nobody.status, no_key.status) == (401, 400)
