"""What a machine sees of its tree, and what it writes: layers in a mount namespace of their own."""

import subprocess
from collections.abc import Mapping
from pathlib import Path

from testbed.host import MachineError
from testbed.processes import end


class Layers:
    """The layers of a machine live in the mount namespace of a process that only waits.

    They outlive a reboot, and vanish with the process: nothing has to be unmounted, and as it reads
    from us, it ends when we do, even by SIGKILL.
    """

    def __init__(self, tree: Path, place: Path, *, is_volatile: bool) -> None:
        """`place` is a folder for them; volatile means that what is written stays in RAM."""
        place.mkdir()
        self.root = place / "root"
        """Where they are, in that namespace."""
        self._holder = _hold(tree, place, is_volatile=is_volatile)

    @property
    def enter(self) -> list[str]:
        """The beginning of a command line that is to see them."""
        return ["nsenter", f"--target={self._holder.pid}", "--mount", "--root", "--wd", "--"]

    def remove(self) -> None:
        """Ends the process, and with it the mounts."""
        end(self._holder)

    def write_names(self, hostname: str, names: Mapping[str, str]) -> None:
        """Write the hostname, and these addresses as /etc/hosts, whether the machine runs or not."""
        etc = Path(f"/proc/{self._holder.pid}/root{self.root}/etc")
        lines = ["127.0.0.1\tlocalhost", "::1\tlocalhost"]
        lines += [f"{address}\t{name}" for name, address in names.items()]
        for name, text in (("hosts", "\n".join(lines)), ("hostname", hostname)):
            new = etc / f"{name}.new"
            new.write_text(f"{text}\n")
            new.chmod(0o644)
            new.rename(etc / name)


def _hold(tree: Path, place: Path, *, is_volatile: bool) -> subprocess.Popen[bytes]:
    layers = """
        set -e
        mount -t tmpfs -o mode=0755 tmpfs "$1"
        cd "$1"
        mkdir upper work root
        if [ "$3" = volatile ]; then
            cd "$2"
            mount -t overlay -o "lowerdir=.,upperdir=$1/upper,workdir=$1/work" overlay "$1/root"
            tr -d - </proc/sys/kernel/random/uuid >"$1/root/etc/machine-id"
        else
            mount --bind "$2" "$1/root"
        fi
        echo mounted
        exec cat
    """
    arguments = [str(place), str(tree.resolve()), "volatile" if is_volatile else ""]
    holder = subprocess.Popen(
        ["unshare", "--mount", "--propagation", "slave", "--", "sh", "-c", layers, "sh", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        umask=0o022,
    )
    assert holder.stdout
    assert holder.stderr
    if holder.stdout.readline() != b"mounted\n":
        words = holder.stderr.read().decode()
        end(holder)
        raise MachineError(f"The layers of {tree} could not be mounted: {words.strip()}")
    return holder
