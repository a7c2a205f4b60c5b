"""The runtime that peer_mlserver.py serves."""

import asyncio
import os

import saved_model
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Classifier(MLModel):
    """Probabilities of photos."""

    async def load(self) -> bool:
        """Load the model."""
        self.predict_pixels = saved_model.load(os.environ["BENCHMARK_MODEL"])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Run one batch, beside the event loop."""
        pixels = NumpyCodec.decode_input(payload.inputs[0])
        scores = await asyncio.to_thread(self.predict_pixels, pixels)
        outputs = [NumpyCodec.encode_output("probabilities", scores)]
        return InferenceResponse(model_name=self.name, outputs=outputs)
