"""The methods of ``pps_v2.API`` about secrets."""

from __future__ import annotations

import base64
from functools import partial

import msgspec

from pdk.errors import UserError
from pdk.kit.db import Database
from pdk.local.pachyderm.rules import secrets
from pdk.local.pachyderm.wire.convert import Message
from pdk.local.pachyderm.wire.schema import Schema


class Named(msgspec.Struct):
    """What is said of a secret."""

    name: str


class Secret(msgspec.Struct):
    """A Secret of Kubernetes, as pachctl sends it."""

    metadata: Named
    type: str | None = None
    data: dict[str, str] | None = None
    stringData: dict[str, str] | None = None  # noqa: N815 - Kubernetes spells it so


class Secrets:
    """Values that pipelines use and nobody lists."""

    def __init__(self, schema: Schema, db: Database) -> None:
        self.schema, self.db = schema, db

    def _empty(self) -> Message:
        return self.schema["google.protobuf.Empty"]()

    async def CreateSecret(self, request: Message) -> Message:
        try:
            given = msgspec.json.decode(request.file, type=Secret)
            data = {key: base64.b64decode(value, validate=True).decode() for key, value in (given.data or {}).items()}
        except (ValueError, RecursionError) as error:  # whose text may show what must not be shown
            known = str(error) if isinstance(error, msgspec.ValidationError) else type(error).__name__
            raise UserError(f"the secret is not a Kubernetes Secret in JSON with metadata.name and texts in base64: {known}") from None
        data.update(given.stringData or {})
        await self.db.write(partial(secrets.create, name=given.metadata.name, type_=given.type or "Opaque", data=data))
        return self._empty()

    def _info(self, secret: secrets.Secret) -> Message:
        info = self.schema["pps_v2.SecretInfo"](type=secret.type)
        info.secret.name = secret.name
        info.creation_timestamp.FromMicroseconds(int(secret.created * 1_000_000))
        return info

    async def ListSecret(self, request: Message) -> Message:
        answer = self.schema["pps_v2.SecretInfos"]()
        for secret in secrets.listing(self.db.reader):
            answer.secret_info.add().CopyFrom(self._info(secret))
        return answer

    async def InspectSecret(self, request: Message) -> Message:
        return self._info(secrets.get(self.db.reader, request.secret.name))

    async def DeleteSecret(self, request: Message) -> Message:
        await self.db.write(partial(secrets.delete, name=request.secret.name))
        return self._empty()
