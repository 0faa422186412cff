"""What the Python side sees in an image: EfficientNet-lite0 under ONNX Runtime with Strata's weights, and from what it sees
the vector in the space of words (ConSE)."""

import json
import math
import os
import pathlib

import numpy
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from PIL import Image, ImageOps

SIDE = 224
CLASSES = 20
TEMPERATURE = 3.0
LABELS = 5
LEAST_LIKELY = 0.05
THUMBNAIL_SIDE = 640
THUMBNAIL_QUALITY = 82
LABEL_TABLE = pathlib.Path(__file__).resolve().parents[2] / "crates/infer/data/imagenet_1k.tsv"

# Blocks, side of the kernel, stride of the first, expansion, channels.
STAGES = (
    (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320),
)


class Eyes:
    """Looks at one image at a time; threads may share it."""

    def __init__(self):
        models = pathlib.Path(os.environ["STRATA_MODELS"])
        options = onnxruntime.SessionOptions()
        # Images are looked at beside each other.
        options.intra_op_num_threads = 1
        model = _network(_read_safetensors(models / "efficientnet_lite0/model.safetensors"))
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        numbers = (models / "conse_minilm_l6_v2/classes.bin").read_bytes()[64:]
        self._classes = numpy.frombuffer(numbers, numpy.float32).reshape(1000, -1)
        rows = LABEL_TABLE.read_text(encoding="utf-8").splitlines()
        self._labels = [row.split("\t")[1].split(", ")[0] for row in rows]

    def look(self, image):
        """The vectors and the likely labels of an RGB image."""
        square = ImageOps.fit(image, (SIDE, SIDE), Image.Resampling.HAMMING)
        pixels = (numpy.asarray(square, numpy.float32) - 127) / 128
        features, logits = self._session.run(None, {"input": pixels.transpose(2, 0, 1)[None]})
        return _unit(features[0]), self.in_words(logits[0]), self.labels(logits[0]), logits[0]

    def in_words(self, logits):
        likely = _softmax(logits / TEMPERATURE)
        top = numpy.argpartition(-likely, CLASSES)[:CLASSES]
        return _unit(likely[top] @ self._classes[top])

    def labels(self, logits):
        likely = _softmax(logits)
        top = numpy.argsort(-likely)[:LABELS]
        return [self._labels[label] for label in top if likely[label] >= LEAST_LIKELY]


def open_rgb(path):
    """An image as it is meant to be seen, on white where it is transparent."""
    image = ImageOps.exif_transpose(Image.open(path))
    if image.mode in ("RGBA", "LA", "P"):
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def save_thumbnail(image, path):
    small = image.copy()
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BICUBIC)
    small.save(path, quality=THUMBNAIL_QUALITY)


def _unit(vector):
    return vector / numpy.linalg.norm(vector)


def _softmax(logits):
    powers = numpy.exp(logits - logits.max())
    return powers / powers.sum()


def _read_safetensors(path):
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    entries = {name: entry for name, entry in json.loads(data[8:end]).items() if name != "__metadata__"}
    def tensor(entry):
        first, last = entry["data_offsets"]
        return numpy.frombuffer(data[end + first : end + last], numpy.float32).reshape(entry["shape"])
    return {name: tensor(entry) for name, entry in entries.items()}


def _network(weights):
    """The network as an ONNX file: `input` `[1, 3, 224, 224]` to `features` `[1, 1280]` and `logits` `[1, 1000]`."""
    nodes, constants = [], []

    def constant(name, value):
        constants.append(numpy_helper.from_array(numpy.ascontiguousarray(value, numpy.float32), name))
        return name

    def convolve(source, name, kernel, stride, size, groups=1, active=True):
        weight = constant(f"{name}.weight", weights[f"{name}.weight"].transpose(3, 2, 0, 1))
        bias = constant(f"{name}.bias", weights[f"{name}.bias"])
        over = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
        before, after = over // 2, over - over // 2
        nodes.append(helper.make_node(
            "Conv", [source, weight, bias], [name],
            kernel_shape=[kernel] * 2, strides=[stride] * 2, group=groups, pads=[before, before, after, after],
        ))
        if active:
            nodes.append(helper.make_node("Clip", [name, "zero", "six"], [f"{name}.active"]))
        return f"{name}.active" if active else name

    constant("zero", numpy.array(0)), constant("six", numpy.array(6))
    source, size, channels, number = convolve("input", "stem", 3, 2, SIDE), SIDE // 2, 32, 0
    for blocks, kernel, first_stride, expansion, outputs in STAGES:
        for position in range(blocks):
            stride, name, before = first_stride if position == 0 else 1, f"blocks.{number}", source
            if expansion > 1:
                source = convolve(source, f"{name}.expand", 1, 1, size)
            source = convolve(source, f"{name}.depthwise", kernel, stride, size, groups=channels * expansion)
            size = math.ceil(size / stride)
            source = convolve(source, f"{name}.project", 1, 1, size, active=False)
            if stride == 1 and channels == outputs:
                nodes.append(helper.make_node("Add", [source, before], [f"{name}.sum"]))
                source = f"{name}.sum"
            channels, number = outputs, number + 1
    source = convolve(source, "head", 1, 1, size)
    nodes.append(helper.make_node("GlobalAveragePool", [source], ["mean"]))
    nodes.append(helper.make_node("Flatten", ["mean"], ["features"]))
    classifier = [constant(f"classifier.{part}", weights[f"classifier.{part}"]) for part in ("weight", "bias")]
    nodes.append(helper.make_node("Gemm", ["features", *classifier], ["logits"]))
    shaped = lambda name, *shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
    graph = helper.make_graph(
        nodes, "efficientnet_lite0", [shaped("input", 1, 3, SIDE, SIDE)],
        [shaped("features", 1, 1280), shaped("logits", 1, 1000)], constants,
    )
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
