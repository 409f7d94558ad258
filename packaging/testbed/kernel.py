"""Debian's kernels for emulated machines, and the initramfs with which they boot."""

from __future__ import annotations

import lzma
import re
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

from testbed.host import MachineError

BUSYBOX = Path("/bin/busybox")
"""Debian's busybox-static."""

INIT = """\
#!/bin/busybox sh
set -e
busybox mount -t devtmpfs none /dev
busybox mount -t proc none /proc
for module in /modules/*; do busybox insmod $module; done
busybox {mount}
busybox mount -t tmpfs none /layers
busybox mkdir /layers/upper /layers/work
busybox mount -t overlay -o lowerdir=/lower,upperdir=/layers/upper,workdir=/layers/work none /root
busybox cp -a /files/. /root/
busybox umount /proc
exec busybox switch_root /root {first}
"""


class Kernel:
    """An unpacked package of a kernel."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._paths = {_name(path): path for path in folder.rglob("*.ko*")}
        self._built_in = {
            _name(Path(line)) for path in folder.rglob("modules.builtin") for line in path.read_text().split()
        }

    @property
    def image(self) -> Path:
        """The file to boot, if the package is a linux-image-…"""
        [image] = self._folder.glob("boot/vmlinuz-*")
        return image

    def modules(self, names: Iterable[str], *, without: Iterable[str] = ()) -> dict[str, bytes]:
        """These modules and those that they need, by name, in the order in which they can be loaded.

        Built-in ones are left out, and those in `without`, which are loaded already.
        """
        seen = self._built_in | set(without)
        found: dict[str, bytes] = {}

        def visit(name: str) -> None:
            if name in seen:
                return
            seen.add(name)
            if name not in self._paths:
                raise MachineError(f"{self._folder} has no module {name}")
            content = _content(self._paths[name])
            needed = re.search(rb"\0depends=([^\0]*)\0", content)
            for other in re.findall(r"[^,]+", needed[1].decode()) if needed else ():
                visit(_normal(other))
            found[name] = content

        for name in names:
            visit(_normal(name))
        return found


def _content(path: Path) -> bytes:
    content = path.read_bytes()
    return lzma.decompress(content) if path.suffix == ".xz" else content


def _name(path: Path) -> str:
    return _normal(path.name.partition(".ko")[0])


def _normal(name: str) -> str:
    return name.replace("-", "_")


def initramfs(modules: Mapping[str, bytes], files: Mapping[str, bytes], mount: str, first: str) -> bytes:
    """An initramfs that loads the modules, mounts the root with `mount` on /lower, and runs `first` there.

    Over the root is a layer in RAM, which has the files, by their paths, and /modules/busybox.
    """
    busybox = BUSYBOX.read_bytes()
    content = {"init": INIT.format(mount=mount, first=first).encode()}
    content |= {"bin/busybox": busybox, "files/modules/busybox": busybox}
    content |= {f"modules/{number:03}-{name}.ko": body for number, (name, body) in enumerate(modules.items())}
    content |= {f"files/{path}": body for path, body in files.items()}
    return _cpio(("dev", "proc", "lower", "layers", "root"), content)


def _cpio(folders: Iterable[str], files: Mapping[str, bytes]) -> bytes:
    """An archive in the format 'newc', which the kernel unpacks; all files are executable."""
    parents = {str(parent) for path in files for parent in Path(path).parents} | set(folders)
    entries = [(name, stat.S_IFDIR | 0o755, b"") for name in sorted(parents - {"."})]
    entries += [(name, stat.S_IFREG | 0o755, body) for name, body in files.items()]
    archive = bytearray()
    for number, (name, mode, body) in enumerate([*entries, ("TRAILER!!!", 0, b"")], 1):
        path = name.encode() + b"\0"
        fields = (number, mode, 0, 0, 1, 0, len(body), 0, 0, 0, 0, len(path), 0)
        archive += b"070701" + "".join(f"{field:08x}" for field in fields).encode() + path
        archive += b"\0" * (-len(archive) % 4) + body
        archive += b"\0" * (-len(archive) % 4)
    return bytes(archive)
