"""Checkpoints as `torch.save` writes them, written without PyTorch."""

import collections
import io
import pickle
import sys
import types
import zipfile

import numpy as np

KINDS = {
    "float32": "FloatStorage",
    "float64": "DoubleStorage",
    "float16": "HalfStorage",
    "int64": "LongStorage",
}


class _Storage:
    def __init__(self, array, key):
        self.array, self.key = array, key


def save(path, value, root="archive"):
    """Writes a zip with `data.pkl` and one file per array; arrays are NumPy's."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")

    def rebuild(*_):
        raise AssertionError("nothing in a checkpoint is called")

    rebuild.__module__, rebuild.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2, torch._utils = rebuild, utils
    for kind in KINDS.values():
        setattr(torch, kind, type(kind, (), {"__module__": "torch"}))
    storages = []

    class Pickler(pickle.Pickler):
        def persistent_id(self, item):
            if isinstance(item, _Storage):
                kind = getattr(torch, KINDS[item.array.dtype.name])
                return ("storage", kind, item.key, "cpu", item.array.size)
            return None

        def reducer_override(self, item):
            if not isinstance(item, np.ndarray):
                return NotImplemented
            base = np.ascontiguousarray(item if item.flags.c_contiguous else item.T)
            storage = _Storage(base, str(len(storages)))
            storages.append(storage)
            stride = tuple(step // item.itemsize for step in item.strides)
            arguments = (storage, 0, item.shape, stride, False, collections.OrderedDict())
            return rebuild, arguments

    before = {name: sys.modules.get(name) for name in ("torch", "torch._utils")}
    sys.modules.update({"torch": torch, "torch._utils": utils})
    try:
        content = io.BytesIO()
        Pickler(content, protocol=2).dump(value)
    finally:
        for name, module in before.items():
            sys.modules.pop(name) if module is None else sys.modules.update({name: module})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{root}/data.pkl", content.getvalue())
        archive.writestr(f"{root}/byteorder", "little")
        for storage in storages:
            archive.writestr(f"{root}/data/{storage.key}", storage.array.tobytes())
