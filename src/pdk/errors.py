"""The tree of errors that PDK raises on purpose; everything else is a defect.

::

    PdkError
    ├── UserError            the input is at fault; repeating it will not help
    │   ├── NotFound         what was named does not exist
    │   ├── Conflict         it exists already, or somebody else changed it first
    │   │   └── WrongState   it is in a state that does not allow the call
    │   └── NotSupported     known, but not offered here
    ├── AuthError            no or wrong credentials
    ├── EngineError          an engine answered with a failure of its own
    └── TemporaryError       worth another try after `delay` seconds

A message says what happened (with the value), what follows, and what to do next.
"""

from __future__ import annotations


class PdkError(Exception):
    """Base of all errors with a message meant for a person."""


class UserError(PdkError):
    """The input is at fault: repeating the same call gives the same answer."""


class NotFound(UserError):
    """What was named does not exist."""


class Conflict(UserError):
    """It exists already, or somebody else changed it first."""


class WrongState(Conflict):
    """It is in a state that does not allow the call."""


class NotSupported(UserError):
    """A known feature of the engine that is not offered here."""


class AuthError(PdkError):
    """Credentials are missing, wrong or expired."""


class EngineError(PdkError):
    """An engine failed on its own account."""


class TemporaryError(PdkError):
    """The same call may succeed later.

    Args:
        message: what happened.
        delay: seconds to wait before the next try.
    """

    def __init__(self, message: str, delay: float = 1.0) -> None:
        super().__init__(message)
        self.delay = delay
