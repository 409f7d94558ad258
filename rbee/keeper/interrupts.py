"""The signals that end rbeectl: an interrupted verb cleans up, and then the process dies of the signal.

That is what a shell wants to see: Ctrl-C then also ends a loop around rbeectl, as with any other program.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING

from rbee.errors import Interrupted
from rbee.signals import ENDING

if TYPE_CHECKING:
    from sys import UnraisableHookArgs


class Interrupts:
    """The first signal of ENDING raises KeyboardInterrupt, once; any later one ends the process at once."""

    def __init__(self) -> None:
        self.came: int | None = None
        """The number of the first one."""
        self._raises = False

    def take_over(self) -> None:
        """Install the handlers. They stay: a signal could come while they are removed; see let_go()."""
        self._raises = True
        sys.unraisablehook = self._end
        for number in ENDING:
            # Set by nohup(1), or by a script's shell for a command in the background.
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._come)

    def let_go(self) -> None:
        """From now on the first one ends the process at once, too."""
        self._raises = False

    def _come(self, number: int, _frame: FrameType | None) -> None:
        if not self._raises:
            die_of(number)
        self._raises = False
        self.came = number
        raise KeyboardInterrupt

    def _end(self, lost: UnraisableHookArgs) -> None:
        """Python drops an exception of a finalizer or of a library's callback, and the verb would go on."""
        if self.came is not None and issubclass(lost.exc_type, KeyboardInterrupt):
            die_of(self.came)
        sys.__unraisablehook__(lost)


def interruptible(main: Callable[[], int]) -> int:
    """Run a program and return its exit code; if one of ENDING came, end the process with it."""
    interrupts = Interrupts()
    try:
        interrupts.take_over()
        code = main()
        interrupts.let_go()
    except KeyboardInterrupt:
        code = Interrupted.exit_code  # it came while another error was reported
    except Exception:
        # Python before 3.12 makes a RuntimeError of one in __set_name__(), as while an Enum is imported.
        if interrupts.came is None:
            raise
        code = Interrupted.exit_code
    # Ctrl-C is also how some verbs are meant to end: rbeectl top exits 0 then.
    if interrupts.came is not None and (interrupts.came != signal.SIGINT or code == Interrupted.exit_code):
        die_of(interrupts.came)
    return code


def die_of(number: int) -> None:
    """End the process by a signal."""
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)
