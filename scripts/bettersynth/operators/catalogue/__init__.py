"""The operators, one module each: what `OperatorSpec` says of it, and its special steps.

These modules are read when the graph is built: they import torch, transformers and Data-Juicer inside functions only.
"""
