"""A .tflite file as a torch module: what a precision does to a network is seen in the runtime itself."""

from __future__ import annotations

import numpy as np
import torch
from ai_edge_litert.interpreter import Interpreter
from torch import Tensor, nn

from netlathe.archspace.errors import FormatError
from netlathe.exporting import dequantized, quantized


class FileNetwork(nn.Module):
    """The content of a .tflite file as a module in eval mode, in LiteRT: images (N, C, H, W) -> scores (N, classes).
    Raises FormatError for a file that LiteRT cannot run."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        try:
            self._interpreter = Interpreter(model_content=content, num_threads=1)
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise FormatError(f"LiteRT cannot run the network in these precisions ({error!s:.160})") from error
        self._source, self._sink = self._interpreter.get_input_details()[0], self._interpreter.get_output_details()[0]
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """The scores, one image after the other."""
        images = np.ascontiguousarray(x.detach().cpu().numpy().transpose(0, 2, 3, 1))
        return torch.from_numpy(np.concatenate([self._scores(image[None]) for image in images])).to(x.device)

    def _scores(
        self, image: np.ndarray[tuple[int, ...], np.dtype[np.float32]]
    ) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        self._interpreter.set_tensor(self._source["index"], quantized(image, self._source))
        self._interpreter.invoke()
        return dequantized(self._interpreter.get_tensor(self._sink["index"]), self._sink)
