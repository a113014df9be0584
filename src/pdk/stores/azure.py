"""A container of Azure Blob Storage."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pdk.environment import azure_account
from pdk.errors import AuthError, NotFound, TemporaryError, UserError

PARTS = 4  # of a large archive that are sent at a time


@dataclass(frozen=True)
class AzureContainer:
    """A container of Blob Storage.

    Account and credentials are read from the variables that the `az` command line reads: ``AZURE_STORAGE_CONNECTION_STRING``, or
    ``AZURE_STORAGE_ACCOUNT`` with ``AZURE_STORAGE_KEY`` or ``AZURE_STORAGE_SAS_TOKEN``; with neither of the two, the identity of the pod or
    of the user's own login (azure-identity) counts.
    """

    container: str

    @property
    def uri(self) -> str:
        """Return the URI that KServe reads it by.

        Raises:
            UserError: no account is named.
        """
        with self._client() as client:
            return str(client.url)

    @contextmanager
    def _client(self) -> Iterator[Any]:
        from azure.core.exceptions import (
            AzureError,
            HttpResponseError,
            ResourceNotFoundError,
            ServiceRequestError,
            ServiceResponseError,
        )

        try:
            with self._connect() as client:
                yield client
        except ResourceNotFoundError as error:
            raise NotFound(f"the container {self.container!r} cannot be used: {error.message}") from error
        except HttpResponseError as error:
            said, status = f"the container {self.container!r} cannot be used: {error.message}", error.status_code or 500
            if status in (401, 403):
                raise AuthError(f"{said}; check AZURE_STORAGE_KEY, or what the pod's identity may do") from error
            raise (TemporaryError if status >= 500 or status == 429 else UserError)(said) from error
        except (ServiceRequestError, ServiceResponseError) as error:
            raise TemporaryError(f"the store of the container {self.container!r} does not answer: {error.message}") from error
        except AzureError as error:
            raise UserError(f"the container {self.container!r} cannot be used: {error.message}") from error

    def _connect(self) -> Any:
        from azure.storage.blob import ContainerClient

        connection, account, credential = azure_account()
        try:
            if connection:
                return ContainerClient.from_connection_string(connection, self.container)
            if not account:
                raise UserError(
                    f"the container {self.container!r} has no account; set AZURE_STORAGE_ACCOUNT, or AZURE_STORAGE_CONNECTION_STRING, "
                    "in the pipeline's secrets"
                )
            if not credential:
                from azure.identity import DefaultAzureCredential

                return ContainerClient(f"https://{account}.blob.core.windows.net", self.container, DefaultAzureCredential())
            return ContainerClient(f"https://{account}.blob.core.windows.net", self.container, credential)
        except ValueError as error:  # a connection string, or a key, that is none
            raise UserError(f"the container {self.container!r} cannot be used: {error}") from error

    def check(self) -> None:
        """Look whether the container is there and may be used."""
        with self._client() as client:
            client.get_container_properties()

    def exists(self, key: str) -> bool:
        """Say whether there is a blob of exactly this name."""
        with self._client() as client:
            return bool(client.get_blob_client(key).exists())

    def put(self, key: str, source: Path) -> None:
        """Write a blob; a large one in parts."""
        with source.open("rb") as file, self._client() as client:
            client.upload_blob(key, file, overwrite=True, max_concurrency=PARTS)
