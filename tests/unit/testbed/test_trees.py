"""The cache of trees that machines boot: what one run builds or uses, no other takes away."""

from pathlib import Path

import pytest
from testbed.trees import Trees


def test_a_tree_that_is_being_built_is_not_pruned_by_another_run(tmp_path: Path) -> None:
    def build(part: Path) -> None:
        part.mkdir()
        with Trees(tmp_path) as other:
            for name in ("base-1", "base-2", "base-3"):
                other._get(name, Path.mkdir, family="base-", keep=1)
        (part / "etc").mkdir()

    with Trees(tmp_path) as trees:
        tree = trees._get("base-0", build, family="base-", keep=1)
        assert (tree / "etc").is_dir()


def test_a_build_that_breaks_leaves_no_tree(tmp_path: Path) -> None:
    def build(part: Path) -> None:
        part.mkdir()
        raise InterruptedError

    with Trees(tmp_path) as trees:
        with pytest.raises(InterruptedError):
            trees._get("base-0", build, family="base-", keep=1)
        assert [path for path in tmp_path.iterdir() if path.is_dir()] == []
        assert trees._get("base-0", Path.mkdir, family="base-", keep=1).is_dir()
