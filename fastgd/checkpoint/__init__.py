"""Checkpoints: a run in one file, from which it continues bit for bit.

Of `save` and `load` (_files), `_objects` says what is saved of an object and how it gets it back,
`_codec` how that is written as JSON and arrays, `_npz` what the file looks like and how it is
verified, and `_atomic_file` how it takes the place of an older one.
"""

from fastgd.checkpoint._files import Checkpoint, load, save
from fastgd.checkpoint._files import FilePath as FilePath
from fastgd.checkpoint._npz import CheckpointError

__all__ = ["Checkpoint", "CheckpointError", "load", "save"]


def __dir__() -> list[str]:
    return __all__
