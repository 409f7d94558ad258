"""Shapes cross the wire unharmed, and bad input names its field and the cure."""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rbee.errors import BadInput
from rbee.wire.codec import decode, encode
from rbee.wire.devices import Devices
from rbee.wire.fleet import CreateToken, Join, Renew, SetTcp
from rbee.wire.heartbeats import Heartbeat, HeartbeatAck
from rbee.wire.hives import AddHive, Hives, SetCordon, SetLabels
from rbee.wire.jobs import Done
from rbee.wire.samples import Sample
from rbee.wire.types import Name, TokenId
from tests.unit.wire_values import ANYTHING, HIVE_VIEW, WIRE_TYPES, values, wire_fields

NAMED = {"ids": lambda kind: getattr(kind, "__name__", None)}

BEAT: dict[str, Any] = {
    "hive_id": "localhost",
    "timestamp": "2026-01-31T12:00:00Z",
    "workers": [],
    "instance": "0123456789abcdef" * 2,
}
LINE = {"speaker": "bee hive", "text": "hello", "event": "detected", "at": "2026-01-31T12:00:00.123Z"}
SAMPLE: dict[str, Any] = {
    "hive_id": "localhost",
    "at": "2026-01-31T12:00:00Z",
    "load_1": 0.5,
    "load_5": 0,
    "load_15": None,
    "cpu_percent": 12.5,
    "cpu_span_seconds": 2.0,
    "memory_used_bytes": 2**30,
    "memory_total_bytes": 2**32,
}
JOIN: dict[str, Any] = {
    "token": "a" * 8,
    "name": "gpu1",
    "machine": "0" * 32,
    "request": "-----BEGIN CERTIFICATE REQUEST-----",
    "version": "0.4.0",
}


# Round trips


@pytest.mark.parametrize("kind", WIRE_TYPES, **NAMED)
def test_a_shape_comes_back_from_json_as_it_went(kind: type[Any]) -> None:
    @given(values(kind))
    def comes_back(shape: Any) -> None:
        assert decode(kind, json.loads(json.dumps(encode(shape)))) == shape

    comes_back()


class Nothing(NamedTuple):
    pass


def test_a_shape_without_fields_is_an_empty_object() -> None:
    assert encode(Nothing()) == {}
    assert decode(Nothing, {}) == Nothing()


def test_fields_that_are_left_out_get_their_defaults() -> None:
    assert decode(AddHive, {"host": "localhost"}) == AddHive("localhost", None)
    assert decode(Heartbeat, BEAT) == Heartbeat(
        "localhost", "2026-01-31T12:00:00Z", (), "0123456789abcdef" * 2, "ready", "", None, ()
    )
    assert decode(CreateToken, {}) == CreateToken(3600, 1, None)
    assert decode(SetLabels, {}) == SetLabels((), ())


def test_fields_that_nobody_knows_are_passed_over() -> None:
    assert decode(AddHive, {"host": "localhost", "colour": {"of": ["the", 1]}}) == AddHive("localhost")
    line = LINE | {"colour": "red"}
    assert decode(Heartbeat, BEAT | {"lines": [line], "mood": None}).lines[0].text == "hello"


def test_a_whole_number_is_a_number_and_null_is_what_is_not_known() -> None:
    sample = decode(Sample, SAMPLE)

    assert (sample.load_1, sample.load_5, sample.load_15, sample.cpu_percent) == (0.5, 0.0, None, 12.5)
    assert isinstance(sample.load_5, float)
    assert sample.gpus == ()


# Bad input


@pytest.mark.parametrize(
    ("kind", "given_value", "field", "complaint"),
    [
        (AddHive, {}, "host", "is missing"),
        (AddHive, {"port": 8600}, "host", "is missing"),
        (AddHive, [], None, "must be a JSON object"),
        (AddHive, None, None, "must be a JSON object"),
        (AddHive, "localhost", None, "must be a JSON object"),
        (AddHive, {"host": 7}, "host", "must be a string"),
        (AddHive, {"host": None}, "host", "must be a string"),
        (AddHive, {"host": ["localhost"]}, "host", "must be a string"),
        (AddHive, {"host": ""}, "host", "must have 1 to 253 characters, and has 0"),
        (AddHive, {"host": "x" * 254}, "host", "must have 1 to 253 characters, and has 254"),
        (AddHive, {"host": "x\ud800"}, "host", "must be valid Unicode, and has a lone surrogate"),
        (AddHive, {"host": "\udfff"}, "host", "must be valid Unicode, and has a lone surrogate"),
        (AddHive, {"host": "localhost", "port": True}, "port", "must be a whole number"),
        (AddHive, {"host": "localhost", "port": False}, "port", "must be a whole number"),
        (AddHive, {"host": "localhost", "port": 8600.5}, "port", "must be a whole number"),
        (AddHive, {"host": "localhost", "port": "8600"}, "port", "must be a whole number"),
        (AddHive, {"host": "localhost", "port": float("nan")}, "port", "must be a whole number"),
        (AddHive, {"host": "localhost", "port": 0}, "port", "must be from 1 to 65535"),
        (AddHive, {"host": "localhost", "port": -1}, "port", "must be from 1 to 65535"),
        (AddHive, {"host": "localhost", "port": 65536}, "port", "must be from 1 to 65535"),
        (AddHive, {"host": "localhost", "port": 10**30}, "port", "must be from 1 to 65535"),
        (Heartbeat, {**BEAT, "hive_id": "a b"}, "hive_id", "must be made of"),
        (Heartbeat, {**BEAT, "hive_id": "-a"}, "hive_id", "must be made of"),
        (Heartbeat, {**BEAT, "hive_id": "a\n"}, "hive_id", "must be made of"),
        (Heartbeat, {**BEAT, "hive_id": "a\x00b"}, "hive_id", "must be made of"),
        (Heartbeat, {**BEAT, "hive_id": "a\x1b[31m"}, "hive_id", "must be made of"),
        (Heartbeat, {**BEAT, "hive_id": "../../etc/passwd"}, "hive_id", "must be made of"),
        (Heartbeat, {**BEAT, "hive_id": "a\u202eb"}, "hive_id", "must be made of"),
        (Heartbeat, {**BEAT, "hive_id": "\u0663"}, "hive_id", "must be made of"),
        (Heartbeat, {**BEAT, "instance": "0" * 31}, "instance", "must have 32 characters"),
        (Heartbeat, {**BEAT, "instance": "G" * 32}, "instance", "must be made of"),
        (Heartbeat, {**BEAT, "instance": "\u0663" * 32}, "instance", "must be made of"),
        (Heartbeat, {**BEAT, "workers": {}}, "workers", "must be a JSON array"),
        (Heartbeat, {**BEAT, "workers": None}, "workers", "must be a JSON array"),
        (Heartbeat, {**BEAT, "workers": ["ok", 7]}, "workers[1]", "must be a string"),
        (Heartbeat, {**BEAT, "workers": ["x"] * 10_001}, "workers", "may have at most 10000 entries"),
        (Heartbeat, {**BEAT, "state": "dead"}, "state", "must be one of 'starting', 'ready', 'stopping'"),
        (Heartbeat, {**BEAT, "state": []}, "state", "must be one of"),
        (Heartbeat, {**BEAT, "state": {}}, "state", "must be one of"),
        (Heartbeat, {**BEAT, "state": None}, "state", "must be one of"),
        (Heartbeat, {**BEAT, "job_id": 0}, "job_id", "must be a string"),
        (Heartbeat, {**BEAT, "lines": [LINE] * 65}, "lines", "may have at most 64 entries, and has 65"),
        (Heartbeat, {**BEAT, "lines": [LINE, {}]}, "lines[1].speaker", "is missing"),
        (Heartbeat, {**BEAT, "lines": [LINE | {"event": "No!"}]}, "lines[0].event", "must be made of"),
        (Heartbeat, {**BEAT, "lines": [LINE | {"text": "x" * 2001}]}, "lines[0].text", "must have 0 to 2000"),
        (Heartbeat, {**BEAT, "lines": [LINE | {"at": "now"}]}, "lines[0].at", "must have 20 to 40"),
        (Hives, {"hives": [{"id": "x"}]}, "hives[0].host", "is missing"),
        (Devices, {"cpu": {}}, "cpu.model", "is missing"),
        (Devices, {"cpu": None}, "cpu", "must be a JSON object"),
        (Heartbeat, {**BEAT, "fingerprint": ""}, "fingerprint", "must have 1 to 64 characters"),
        (Heartbeat, {**BEAT, "fingerprint": "0xf"}, "fingerprint", "must be made of"),
        (Sample, {**SAMPLE, "load_1": "1"}, "load_1", "must be a number"),
        (Sample, {**SAMPLE, "load_1": True}, "load_1", "must be a number"),
        (Sample, {**SAMPLE, "load_1": -0.1}, "load_1", "must be from 0 to"),
        (Sample, {**SAMPLE, "cpu_percent": 100.5}, "cpu_percent", "must be from 0 to 100"),
        (Sample, {**SAMPLE, "cpu_percent": float("nan")}, "cpu_percent", "must be from 0 to 100"),
        (Sample, {**SAMPLE, "cpu_span_seconds": float("inf")}, "cpu_span_seconds", "must be from 0 to"),
        (float, float("nan"), None, "must be a finite number"),
        (float, 10**400, None, "must be a finite number"),
        (HeartbeatAck, {"status": "fine", "interval_ms": 1}, "status", "must be one of 'ok'"),
        (HeartbeatAck, {"status": "ok", "interval_ms": -1}, "interval_ms", "must be from 0 to"),
        (Name, "", None, "must have 1 to 253"),
        (SetTcp, {}, "is_open", "is missing"),
        (SetTcp, {"is_open": 1}, "is_open", "must be true or false"),
        (CreateToken, {"ttl_s": 0}, "ttl_s", "must be from 1 to 2592000"),
        (CreateToken, {"ttl_s": 30 * 86400 + 1}, "ttl_s", "must be from 1 to 2592000"),
        (CreateToken, {"ttl_s": 60.5}, "ttl_s", "must be a whole number"),
        (CreateToken, {"uses": 0}, "uses", "must be from 1 to 10000"),
        (CreateToken, {"hive": ""}, "hive", "must have 1 to 63"),
        (CreateToken, {"hive": "../x"}, "hive", "must be made of"),
        (Join, {**JOIN, "token": "x" * 201}, "token", "must have 1 to 200"),
        (Join, {**JOIN, "name": "gpu 1"}, "name", "must be made of"),
        (Join, {**JOIN, "name": "gpu1\x1b[2J"}, "name", "must be made of"),
        (Join, {**JOIN, "machine": "0" * 31}, "machine", "must have 32"),
        (Join, {**JOIN, "machine": "G" * 32}, "machine", "must be made of"),
        (Join, {**JOIN, "request": "x" * 8001}, "request", "must have 1 to 8000"),
        (Renew, {"request": None}, "request", "must be a string"),
        (SetLabels, {"set": {"rack": "3"}}, "set", "must be a JSON array"),
        (SetLabels, {"set": [{"key": "rack"}]}, "set[0].value", "is missing"),
        (SetLabels, {"set": [{"key": "", "value": ""}]}, "set[0].key", "must have 1 to 63"),
        (SetLabels, {"set": [{"key": "a=b", "value": ""}]}, "set[0].key", "must be made of"),
        (SetLabels, {"set": [{"key": "a,b", "value": ""}]}, "set[0].key", "must be made of"),
        (SetLabels, {"set": [{"key": "a", "value": "b,c"}]}, "set[0].value", "must be empty, or made of"),
        (SetLabels, {"set": [{"key": "a", "value": "b\n"}]}, "set[0].value", "must be empty, or made of"),
        (SetLabels, {"set": [{"key": "a", "value": "x" * 64}]}, "set[0].value", "must have 0 to 63"),
        (SetLabels, {"set": [{"key": "a", "value": ""}] * 65}, "set", "may have at most 64 entries"),
        (SetLabels, {"remove": ["rack", "-"]}, "remove[1]", "must be made of"),
        (SetCordon, {}, "reason", "is missing"),
        (SetCordon, {"reason": "x" * 2001}, "reason", "must have 0 to 2000"),
        (TokenId, "0123456G", None, "must be made of"),
    ],
)  # fmt: skip
def test_bad_input_names_its_field_and_what_it_must_be(
    kind: Any, given_value: Any, field: str | None, complaint: str
) -> None:
    with pytest.raises(BadInput) as caught:
        decode(kind, given_value)

    assert caught.value.field == field
    assert caught.value.message.startswith(f"{field or 'the body'} {complaint}")


@pytest.mark.parametrize("kind", WIRE_TYPES, **NAMED)
def test_whatever_comes_is_a_shape_or_bad_input(kind: type[Any]) -> None:
    names = set(kind._fields)

    @given(ANYTHING | st.dictionaries(st.sampled_from(sorted(names)), ANYTHING))
    def holds(value: Any) -> None:
        refused: BadInput | None = None
        try:
            assert isinstance(decode(kind, value), kind)
        except BadInput as error:
            refused = error
        if refused is None:
            return
        if isinstance(value, dict):
            assert re.split(r"[.\[]", refused.field or "")[0] in names
        else:
            assert refused.field is None
        assert refused.message.startswith(f"{refused.field or 'the body'} ")
        # Nothing that was sent is repeated, so nothing in it can steer who reads it.
        assert refused.message.isprintable()
        assert len(refused.message) < 400

    holds()


@pytest.mark.parametrize("kind", WIRE_TYPES, **NAMED)
def test_each_wrong_value_wherever_it_stands_is_refused_by_its_path(kind: type[Any]) -> None:
    @settings(max_examples=20)
    @given(values(kind))
    def holds(shape: Any) -> None:
        document = encode(shape)
        for place in wire_fields(kind, document):
            right = place.holder[place.key]
            for wrong in place.invalid_values():
                place.put(wrong)
                with pytest.raises(BadInput) as caught:
                    decode(kind, document)
                assert caught.value.field == place.path
                assert caught.value.message.startswith(f"{place.path} ")
            place.put(right)
        assert decode(kind, document) == shape

    holds()


@pytest.mark.parametrize("kind", WIRE_TYPES, **NAMED)
def test_each_field_that_is_left_out_is_named_unless_it_has_a_default(kind: type[Any]) -> None:
    @settings(max_examples=20)
    @given(values(kind))
    def holds(shape: Any) -> None:
        document = encode(shape)
        for place in list(wire_fields(kind, document)):
            if not isinstance(place.holder, dict):
                continue
            right = place.holder.pop(place.key)
            if place.may_be_missing:
                decode(kind, document)
            else:
                with pytest.raises(BadInput) as caught:
                    decode(kind, document)
                assert (caught.value.field, caught.value.message) == (place.path, f"{place.path} is missing")
            place.put(right)

    holds()


def test_a_yes_or_no_takes_no_number() -> None:
    hive = encode(HIVE_VIEW)

    with pytest.raises(BadInput, match="hive.wanted must be true or false"):
        decode(Done, {"hive": hive | {"wanted": 1}})


@pytest.mark.parametrize(
    "time",
    [
        "2026-01-31T12:00:00Z",
        "2026-01-31t12:00:00z",
        "2026-01-31 12:00:00Z",
        "2026-01-31T12:00:00.1Z",
        "2026-01-31T12:00:00.123456789Z",
        "2026-01-31T12:00:00+01:00",
        "2026-01-31T12:00:00.5-11:30",
        "2024-02-29T23:59:59-00:00",
    ],
)
def test_times_of_rfc_3339_are_taken(time: str) -> None:
    assert decode(Heartbeat, BEAT | {"timestamp": time}).timestamp == time


@pytest.mark.parametrize(
    "time",
    [
        "2026-01-31T12:00:00.000",
        "2026-01-31T12:00:00+0100",
        "2026-01-31T12:00:00+01",
        "2026-01-31T12:00:00+05:99",
        "2026-01-31T12:00:00+24:00",
        "2026-02-30T12:00:00Z",
        "2025-02-29T12:00:00Z",
        "2026-13-01T12:00:00Z",
        "2026-00-01T12:00:00Z",
        "2026-01-31T24:00:00Z",
        "2026-01-31T12:60:00Z",
        "2026-01-31T12:00:61Z",
        "0000-01-31T12:00:00Z",
        "20260131T120000.000Z",
        "2026-W05-6T12:00:00Z",
        "2026-01-31T12:00:00Z\n",
        " 2026-01-31T12:00:00Z",
        "2026-01-31T12:00:00,5Z",
        "2026-01-31T12:00:00.Z",
        "2026-01-31T12:00:00.1234567890Z",
        "٢٠٢٦-٠١-٣١T١٢:٠٠:٠٠Z",
        "31 January 2026, noon",
    ],
)  # fmt: skip
def test_times_that_are_not_of_rfc_3339_are_refused_with_an_example(time: str) -> None:
    with pytest.raises(BadInput, match=r"^timestamp must be an RFC 3339 time .* 2026-01-31T12:00:00Z"):
        decode(Heartbeat, BEAT | {"timestamp": time})
