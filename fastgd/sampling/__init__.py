"""Mini-batches: which samples a gradient step sees.

`MiniBatches` (_mini_batches) keeps the epoch and the position in it. `_options` checks the options,
`_samplers` gives an epoch's order, `_batches` cuts it into batches, `_rows` fetches their rows, and
`_prefetch` has that done in a background thread.
"""

from fastgd.sampling._mini_batches import MiniBatches

__all__ = ["MiniBatches"]
