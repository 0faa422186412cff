"""The Python side's vectors of texts: MiniLM under ONNX Runtime with Strata's weights."""

import os
import pathlib

import numpy
import onnxruntime
from tokenizers import Tokenizer

MODEL = "all_minilm_l6_v2_int8"
MAX_TOKENS = 256
BATCH = 32


class Words:
    def __init__(self, threads):
        folder = pathlib.Path(os.environ["STRATA_MODELS"]) / MODEL
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.enable_truncation(MAX_TOKENS)
        self._tokenizer.enable_padding()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])

    def embed(self, texts):
        """A unit vector each, in their order; texts of like length go together."""
        order = sorted(range(len(texts)), key=lambda at: len(texts[at]))
        vectors = [None] * len(texts)
        for first in range(0, len(order), BATCH):
            places = order[first : first + BATCH]
            for at, vector in zip(places, self._batch([texts[at] for at in places])):
                vectors[at] = vector
        return vectors

    def _batch(self, texts):
        encoded = self._tokenizer.encode_batch(texts)
        mask = numpy.array([each.attention_mask for each in encoded])
        ids = numpy.array([each.ids for each in encoded])
        inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": numpy.zeros_like(ids)}
        (states,) = self._session.run(None, inputs)
        sums = (states * mask[..., None]).sum(1)
        return sums / numpy.linalg.norm(sums, axis=1, keepdims=True)
