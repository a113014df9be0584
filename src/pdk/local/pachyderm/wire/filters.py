"""jq filters of job and pipeline listings (``pachctl list job --state failure`` sends one).

They run in a process of their own: a filter can loop for ever, and `jq` would hold the server up meanwhile.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence

from google.protobuf import json_format

from pdk.local.pachyderm.rules.model import Refused
from pdk.local.pachyderm.wire.convert import Message

LIMIT_S = 10.0  # as the engine has it


async def passing(filter_: str, messages: Sequence[Message]) -> list[Message]:
    """Return the messages that pass a filter; all of them where there is none.

    Raises:
        Refused: it is no filter, or takes too long.
    """
    if not filter_:
        return list(messages)
    documents = [json_format.MessageToJson(message, preserving_proto_field_name=True, indent=None) for message in messages]
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "pdk.local.pachyderm.wire.jq", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(LIMIT_S):
            answer, _ = await program.communicate("\n".join((json.dumps(filter_), *documents)).encode())
    except TimeoutError as error:
        raise Refused(f"error applying jq filter on proto message: {filter_!r} took longer than {LIMIT_S:g} s") from error
    finally:
        if program.returncode is None:
            program.kill()
            await program.wait()
    verdicts = json.loads(answer or b'"the filter could not be run"')
    if isinstance(verdicts, str):
        raise Refused(f"error parsing or applying jq filter {filter_!r}: {verdicts}")
    return [message for message, passes in zip(messages, verdicts, strict=True) if passes]
