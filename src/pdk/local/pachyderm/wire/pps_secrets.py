"""The methods of ``pps_v2.API`` about secrets."""

from __future__ import annotations

import base64
import binascii
import json
from functools import partial

from pdk.errors import UserError
from pdk.kit.db import Database
from pdk.local.pachyderm.rules import secrets
from pdk.local.pachyderm.wire.convert import Message
from pdk.local.pachyderm.wire.schema import Schema


class Secrets:
    """Values that pipelines use and nobody lists."""

    def __init__(self, schema: Schema, db: Database) -> None:
        self.schema, self.db = schema, db

    def _empty(self) -> Message:
        return self.schema["google.protobuf.Empty"]()

    async def CreateSecret(self, request: Message) -> Message:
        try:
            content = json.loads(request.file)
            name = content["metadata"]["name"]
            data = {key: base64.b64decode(value, validate=True).decode() for key, value in (content.get("data") or {}).items()}
            data.update({key: str(value) for key, value in (content.get("stringData") or {}).items()})
        except (ValueError, KeyError, TypeError, binascii.Error) as error:
            raise UserError(f"the secret is not a Kubernetes Secret in JSON with metadata.name and base64 data: {error!r}") from error
        await self.db.write(partial(secrets.create, name=name, type_=content.get("type") or "Opaque", data=data))
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
