"""The tree of errors that PDK raises on purpose; everything else is a defect, and is answered and logged as one.

::

    PdkError
    ├── UserError              the input is at fault; repeating it will not help
    │   ├── NotFound           what was named does not exist
    │   ├── Conflict           it exists already, or somebody else changed it first
    │   │   └── WrongState     it is in a state that does not allow the call
    │   ├── NotSupported       known, but not offered here
    │   ├── Unreadable         a document is not what it should be                     (documents)
    │   ├── TooLarge           a request is larger than it may be                      (kit.web)
    │   ├── TooMuchHeld        messages that are not whole have no more room          (kit.http2_stream)
    │   ├── Refused            what Pachyderm refuses, in its words                    (local.pachyderm.rules.model)
    │   │   ├── StillInUse     something stands on what is to be removed               (local.pachyderm.rules.repos)
    │   │   └── Circle         a branch would feed itself                              (local.pachyderm.rules.repos)
    │   └── DatumFailed        what a program left cannot be taken in                  (local.pachyderm.runtime.layout)
    ├── AuthError              no or wrong credentials
    │   └── NotAllowed         an address that this installation may not reach         (kit.reach)
    ├── EngineError            an engine answered with a failure of its own
    │   ├── Damaged            stored bytes are not what was stored                    (local.pachyderm.store.blobs)
    │   └── LoadFailed         a predictor cannot serve its model                      (local.kserve.runtime.replica)
    ├── TemporaryError         worth another try after `delay` seconds
    │   ├── NotFinished        a commit is open                                        (local.pachyderm.rules.commits)
    │   └── Moved              somebody else wrote meanwhile                           (local.pachyderm.rules.files)
    ├── WireError              an answer in the words of one protocol; raised in its wire rooms
    │   ├── Status             of gRPC                                                 (kit.grpc_server)
    │   ├── S3Error            of S3                                                   (local.pachyderm.wire.s3_common)
    │   ├── ApiError           of Kubernetes                                           (local.kserve.rules.kinds)
    │   └── Rejected           of the serving runtime                                  (serving.runner)
    └── DemoFailed             a step of `pdk demo` did not do what it should          (demo)

A message says what happened (with the value), what follows, and what to do next. `tests/unit/test_layout.py` compares the tree with the
code.
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


class WireError(PdkError):
    """An answer in the words of one protocol."""
