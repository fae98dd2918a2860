"""What to tell of an address where nobody can listen."""

from __future__ import annotations

import errno
import os
import socket


def refused(where: object, error: BaseException | None, option: str) -> str:
    """One line that says why `error` kept somebody from listening there, and which option has to change.

    asyncio gives no number to an address that is not the machine's own; libraries raise an error of their own for a
    name that is not found.
    """
    number = error.errno if isinstance(error, OSError) else None
    is_unknown = any(isinstance(each, socket.gaierror) for each in (error, error and error.__context__))
    if number in (None, errno.EADDRNOTAVAIL) or is_unknown:
        return f"cannot listen on {where}: this machine has no such address; give {option} another, such as 127.0.0.1:0"
    reason = os.strerror(number or 0).lower()
    return f"cannot listen on {where}: {reason}; give {option} another port, or 0 for a free one"
