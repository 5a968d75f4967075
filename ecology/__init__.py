"""tiny-ecology: breed, judge and promote LoRA adapters, and prove afterwards what was done.

Imports go down only (``errors`` at the bottom, ``cli`` at the top); ``pyproject.toml`` holds the floors and
``make check`` proves them. This module imports nothing, so that ``ecology --help`` stays quick.
"""

__version__ = "0.1.0"
