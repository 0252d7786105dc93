"""ggml_blocks.safetensors: random blocks of GGUF's quantised types and the floats that ggml's own
Python package makes of them. Of each type `q4_k` [blocks, bytes], U8, and `q4_k.floats` [blocks,
elements], float32. Needs gguf, numpy, safetensors:

    python make_ggml_blocks.py
"""
import os

import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf.quants import dequantize
from safetensors.numpy import save_file

# The type, its bytes, and where its float16 scales are.
KINDS = {
    "q8_0": (Type.Q8_0, 34, [0]),
    "q4_0": (Type.Q4_0, 18, [0]),
    "q4_k": (Type.Q4_K, 144, [0, 2]),
    "q6_k": (Type.Q6_K, 210, [208]),
}
BLOCKS = 5

random = np.random.default_rng(3)
tensors = {}
for name, (kind, size, scales) in KINDS.items():
    blocks = random.integers(0, 256, (BLOCKS, size), dtype=np.uint8)
    for at in scales:
        values = random.normal(size=BLOCKS).astype(np.float16)
        blocks[:, at:at + 2] = values.view(np.uint8).reshape(BLOCKS, 2)
    tensors[name] = blocks
    tensors[name + ".floats"] = dequantize(blocks, kind).astype(np.float32)
save_file(tensors, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "ggml_blocks.safetensors"))
