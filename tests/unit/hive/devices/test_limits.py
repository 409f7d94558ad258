"""What cgroups of both versions allow a guest, and whose limits count."""

from __future__ import annotations

from pathlib import Path

import pytest

from rbee.hive.devices.limits import Limits, limits

UNIT = "0::/rbee.slice/rbee-hive.service\n"


def write(root: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)


@pytest.mark.parametrize(
    ("place", "files", "told"),
    [
        pytest.param(UNIT, {}, Limits(None, None), id="none"),
        pytest.param(
            UNIT,
            {"memory.max": "max\n", "cpu.max": "max 100000\n", "cpuset.cpus.effective": "\n"},
            Limits(None, None),
            id="none-in-words",
        ),
        pytest.param(
            UNIT,
            {"memory.max": "2147483648\n", "cpu.max": "150000 100000\n", "cpuset.cpus.effective": "0-3,8\n"},
            Limits(1.5, 2**31),
            id="of-the-namespace-s-root",
        ),
        pytest.param(
            UNIT,
            {
                "memory.max": "2147483648\n",
                "rbee.slice/memory.max": "1073741824\n",
                "rbee.slice/cpu.max": "50000 100000\n",
            },
            Limits(0.5, 2**30),
            id="of-the-slice",
        ),
        pytest.param(
            UNIT,
            {"rbee.slice/rbee-hive.service/memory.max": "536870912\n"},
            Limits(None, None),
            id="not-the-daemon-s-own",
        ),
        pytest.param(
            "0::/user.slice/user@1000.service/app.slice/rbee-hive.service\n",
            {"user.slice/user@1000.service/memory.max": "1048576\n"},
            Limits(None, 2**20),
            id="of-a-user-s-manager",
        ),
        pytest.param("0::/\n", {"memory.max": "1048576\n"}, Limits(None, 2**20), id="without-systemd"),
        pytest.param("0::/../x.scope\n", {"memory.max": "1048576\n"}, Limits(None, 2**20), id="from-outside"),
        pytest.param(
            "4:memory:/docker/abc\n3:cpuset:/\n2:cpu,cpuacct:/docker/abc\n0::/\n",
            {
                "memory/memory.limit_in_bytes": "1073741824\n",
                "cpu/cpu.cfs_quota_us": "200000\n",
                "cpu/cpu.cfs_period_us": "100000\n",
                "cpuset/cpuset.effective_cpus": "2-4\n",
            },
            Limits(2.0, 2**30),
            id="version-1",
        ),
        pytest.param(
            "4:memory:/rbee.slice\n2:cpu:/\n",
            {
                "memory/rbee.slice/memory.limit_in_bytes": "4096\n",
                "cpu/cpu.cfs_quota_us": "-1\n",
                "cpu/cpu.cfs_period_us": "100000\n",
            },
            Limits(None, 4096),
            id="version-1-without-quota",
        ),
        pytest.param(
            "x\n\n0::\n1:a\n" + UNIT,
            {"memory.max": "9" * 5000, "cpu.max": "1 0\n", "cpuset.cpus.effective": "a-b,7-\n"},
            Limits(None, None),
            id="nonsense",
        ),
    ],
)  # fmt: skip
def test_the_limits_that_count_are_told(
    tmp_path: Path, place: str, files: dict[str, str], told: Limits
) -> None:
    write(
        tmp_path,
        {"proc/self/cgroup": place, **{f"sys/fs/cgroup/{name}": text for name, text in files.items()}},
    )
    assert limits(tmp_path) == told
