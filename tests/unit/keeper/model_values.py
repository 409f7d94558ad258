"""A model, its worker and what is about them, as the queen reports them."""

from __future__ import annotations

from rbee.wire.engines import Engine, FleetEngines, HiveEngines
from rbee.wire.models import Head, ModelView
from rbee.wire.workers import Candidate, Placement, WorkerView

GIB = 2**30
NOW = 1_700_000_000_000

HEAD = Head("gguf", "llama", 7_620_000_000, "Q4_K", 32_768, 28, 4 * GIB, 57_344, 3_584, 152_064)

MODEL = ModelView(
    name="bee", source="/srv/bee.gguf", hive_id="localhost", state="ready", reason="its file is there",
    since_ms=NOW, path="/srv/bee.gguf", head=HEAD, bytes=4 * GIB, sha256=None, memory_bytes=None,
    learned_bytes=5 * GIB, context=4096, is_served=True, is_pinned=False, idle_s=300, engine=None,
    created_at_ms=NOW,
)  # fmt: skip

WORKER = WorkerView(
    id="bee-1", model="bee", hive_id="localhost", state="busy", reason="answers", since_ms=NOW, in_flight=2,
    engine="llama-server", pool="gpu0", context=4096, claim_bytes=5 * GIB, used_bytes=4 * GIB,
    peak_bytes=4 * GIB, pid=4711, last_used_ms=NOW,
)  # fmt: skip

ASLEEP = WorkerView(None, "bee", None, "asleep", "nobody asks", NOW)

PLACEMENT = Placement(
    "bee", 5 * GIB, "learned", 4096, "start", "it fits",
    (
        Candidate("localhost", "ram", "RAM", 16 * GIB, 3 * GIB, GIB, 5 * GIB, False, "3 GiB short"),
        Candidate("localhost", "gpu0", "RTX 4090", 24 * GIB, 20 * GIB, GIB, 5 * GIB, True, "tightest", True),
    ),
)  # fmt: skip

ENGINES = FleetEngines(
    (
        HiveEngines(
            "localhost",
            (
                Engine("llama-server", "/usr/bin/llama-server", ("gguf",), "/usr/lib/rbee/engines.d/l.conf"),
                Engine("vllm", "/usr/bin/vllm", ("safetensors",), "/x/vllm.conf", "vllm was not found"),
            ),
            ("/etc/rbee/engines.d/a.conf:3: unknown",),
        ),
        HiveEngines("gpu1", (), (), "it does not answer"),
    )
)
