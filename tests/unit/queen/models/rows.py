"""Rows of models."""

from __future__ import annotations

from rbee.queen.store.models import ModelRow
from rbee.wire.models import Head

HEAD = Head("gguf", "llama", 1_000_000, "F16", 2048)

ROW = ModelRow(
    name="bee", hive_id="localhost", source="/m/bee.gguf", fetch=None, state="ready", reason="", since_ms=1,
    path="/m/bee.gguf", head=HEAD, bytes=793_000, sha256=None, memory_bytes=None, context=None,
    is_served=False, is_pinned=False, idle_s=300, engine=None, created_at_ms=1,
)  # fmt: skip
FETCHED = ModelRow(
    name="wasp", hive_id="localhost", source="https://h/wasp.gguf", fetch="0123456789abcdef", state="ready",
    reason="", since_ms=1, path="/store/wasp", head=HEAD, bytes=5, sha256="5" * 64, memory_bytes=2**30,
    context=4096, is_served=True, is_pinned=True, idle_s=60, engine="llama-server", created_at_ms=2,
)  # fmt: skip
