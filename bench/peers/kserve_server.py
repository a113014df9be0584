"""KServe's own ModelServer with the handler of an archive: ``python kserve_server.py FOLDER PORT`` in KServe's environment."""

import sys
import types

from kserve import Model, ModelServer


class Peer(Model):
    """The same handler, the same model in the same form."""

    def __init__(self, folder):
        super().__init__("m")
        import torch

        torch.set_num_threads(1)
        sys.path.insert(0, folder)
        from handler import DogCatHandler

        self.handler = DogCatHandler()
        context = types.SimpleNamespace(system_properties={"model_dir": folder}, manifest={"model": {"serializedFile": "model.pt"}})
        self.handler.initialize(context)
        faster = self.handler.model.to(memory_format=torch.channels_last)
        self.handler.model = torch.jit.optimize_for_inference(torch.jit.freeze(faster))
        self.ready = True

    def predict(self, payload, headers=None):  # noqa: ARG002 - KServe names it
        """V1."""
        return {"predictions": self.handler.handle(payload["instances"], None)}


if __name__ == "__main__":
    ModelServer(http_port=int(sys.argv[2]), workers=1, enable_grpc=False).start([Peer(sys.argv[1])])
