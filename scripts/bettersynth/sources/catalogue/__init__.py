"""Families of captioners and redrawers, one module each.

These modules are read for estimates: they import torch, transformers and diffusers nowhere.
"""
