"""Being asked to stop: signals as something to wait for beside everything else."""

from __future__ import annotations

import os
import signal


def catch_signals(*numbers: signal.Signals) -> int:
    """A descriptor that becomes readable when one of these signals asks this process to stop."""
    receiver, sender = os.pipe()
    os.set_blocking(sender, False)
    signal.set_wakeup_fd(sender, warn_on_full_buffer=False)
    for number in numbers:
        # nohup's way to say that it is to stay when the terminal goes.
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda *_: None)
    return receiver
