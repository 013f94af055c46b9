"""Networks that hide their gradients and networks that do not: does an evaluation tell them apart?

`python -m benchmarks.gallery` measures all of them; `tests/gallery` asserts what must hold of each.
"""
