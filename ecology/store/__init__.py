"""Adapters as bytes: reading PEFT folders with suspicion, writing our own, keeping them by content.

``header``: safetensors without torch. ``adapters``: PEFT LoRA folders in, canonical folders out. ``artifacts``: the
content-addressed store. ``files``: atomic writing and bounded reading for all of them.
"""
