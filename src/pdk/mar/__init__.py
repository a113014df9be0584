"""The model archive (.mar): TorchServe's format, written reproducibly and read with distrust."""

from pdk.mar.format import Manifest
from pdk.mar.read import Archive
from pdk.mar.write import write

__all__ = ["Archive", "Manifest", "write"]
