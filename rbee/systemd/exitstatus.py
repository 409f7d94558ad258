"""systemd's own exit statuses: of a process that systemd could not prepare for its program.

The program never ran, so neither its log nor its status text has the reason, but only the number.
`systemd-analyze exit-status` prints the same list, and systemd.exec(5) has it under "Process exit codes".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from rbee.scope import SYSTEM, Scope


class Setup(NamedTuple):
    """One step before a unit's program: systemd's name for it, what failed, and the settings that ask for
    it, as `systemctl show` calls them."""

    name: str
    failure: str
    settings: tuple[str, ...] = ()


_PATHS = (
    "ReadWritePaths", "ReadOnlyPaths", "InaccessiblePaths", "ExecPaths", "NoExecPaths", "BindPaths",
    "BindReadOnlyPaths", "TemporaryFileSystem", "RootDirectory",
)  # fmt: skip

SETUPS: Mapping[int, Setup] = {
    200: Setup("CHDIR", "change to its working directory", ("WorkingDirectory",)),
    201: Setup("NICE", "set its priority", ("Nice",)),
    202: Setup("FDS", "hand over its file descriptors"),
    203: Setup("EXEC", "execute its program, which is missing or may not be executed", ("ExecStart",)),
    204: Setup("MEMORY", "get enough memory for it"),
    205: Setup("LIMITS", "set its resource limits", ("LimitNOFILE", "LimitMEMLOCK", "LimitNPROC")),
    206: Setup("OOM_ADJUST", "set its OOM score", ("OOMScoreAdjust",)),
    207: Setup("SIGNAL_MASK", "set its signal mask"),
    208: Setup("STDIN", "open its standard input", ("StandardInput",)),
    209: Setup("STDOUT", "open its standard output", ("StandardOutput",)),
    210: Setup("CHROOT", "change its root directory", ("RootDirectory", "RootImage")),
    211: Setup("IOPRIO", "set its I/O priority", ("IOSchedulingClass", "IOSchedulingPriority")),
    212: Setup("TIMERSLACK", "set its timer slack", ("TimerSlackNSec",)),
    213: Setup("SECUREBITS", "set its secure bits", ("SecureBits",)),
    214: Setup("SETSCHEDULER", "set its CPU scheduling", ("CPUSchedulingPolicy", "CPUSchedulingPriority")),
    215: Setup("CPUAFFINITY", "bind it to its processors", ("CPUAffinity",)),
    216: Setup("GROUP", "take on its group, which may not exist", ("Group", "SupplementaryGroups")),
    217: Setup("USER", "take on its user, which may not exist", ("User", "PrivateUsers")),
    218: Setup("CAPABILITIES", "set its capabilities", ("CapabilityBoundingSet", "AmbientCapabilities")),
    219: Setup("CGROUP", "set up its control group", ("Slice", "Delegate")),
    220: Setup("SETSID", "make a session for it"),
    221: Setup("CONFIRM", "run it, as nobody confirmed that on the console"),
    222: Setup("STDERR", "open its standard error output", ("StandardError",)),
    224: Setup("PAM", "open its PAM session", ("PAMName",)),
    225: Setup("NETWORK", "set up its network namespace", ("PrivateNetwork", "NetworkNamespacePath")),
    226: Setup(
        "NAMESPACE", "set up its view of the file system: a path that a setting names may not exist", _PATHS
    ),
    227: Setup("NO_NEW_PRIVILEGES", "keep it from new privileges", ("NoNewPrivileges",)),
    228: Setup("SECCOMP", "set up its filter of system calls", ("SystemCallFilter",)),
    229: Setup("SELINUX_CONTEXT", "set its SELinux context", ("SELinuxContext",)),
    230: Setup("PERSONALITY", "set its personality", ("Personality",)),
    231: Setup("APPARMOR", "change to its AppArmor profile", ("AppArmorProfile",)),
    232: Setup("ADDRESS_FAMILIES", "restrict its address families", ("RestrictAddressFamilies",)),
    233: Setup("RUNTIME_DIRECTORY", "make its directory in /run", ("RuntimeDirectory",)),
    235: Setup("CHOWN", "give its socket to its user", ("SocketUser", "SocketGroup")),
    236: Setup("SMACK_PROCESS_LABEL", "set its SMACK label", ("SmackProcessLabel",)),
    237: Setup("KEYRING", "set up its kernel keyring", ("KeyringMode",)),
    238: Setup("STATE_DIRECTORY", "make its directory in /var/lib", ("StateDirectory",)),
    239: Setup("CACHE_DIRECTORY", "make its directory in /var/cache", ("CacheDirectory",)),
    240: Setup("LOGS_DIRECTORY", "make its directory in /var/log", ("LogsDirectory",)),
    241: Setup("CONFIGURATION_DIRECTORY", "make its directory in /etc", ("ConfigurationDirectory",)),
    242: Setup("NUMA_POLICY", "set its NUMA memory policy", ("NUMAPolicy", "NUMAMask")),
    243: Setup("CREDENTIALS", "set up its credentials", ("LoadCredential", "SetCredential")),
    244: Setup("BPF", "restrict its file systems by BPF", ("RestrictFileSystems",)),
    245: Setup("KSM", "set its merging of memory pages", ("MemoryKSM",)),
}
"""Without 255, which many programs use as well."""


def describe_exit(status: int) -> str:
    """'exit status 1', or what systemd could not do if the status is one of its own."""
    setup = SETUPS.get(status)
    if setup is None:
        return f"exit status {status}"
    return f"exit status {status}/{setup.name}: systemd could not {setup.failure}"


def cure_for_exit(status: int, unit: str, scope: Scope = SYSTEM) -> str | None:
    """Commands, one a line, that show what systemd could not do and why; None for a program's own status."""
    setup = SETUPS.get(status)
    if setup is None:
        return None
    lines = [scope.journalctl(f"-u {unit} -e")]
    if setup.settings:
        lines.insert(0, scope.systemctl(f"show -p {','.join(setup.settings)} {unit}"))
    return "\n".join(lines)
