"""Tensors as NumPy arrays: a parameter's over its own memory or over a master's, and a gradient's."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastgd import _engine
from fastgd._arrays.gradients import Rows
from fastgd._arrays.tree import Array

try:
    torch: Any = importlib.import_module("torch")
except ImportError as error:
    raise ImportError('fastgd.adapters.torch needs PyTorch: pip install "fastgd[torch]"') from error

OWN = (torch.float32, torch.float64)  # dtypes of parameters that a step updates where they lie
DTYPES = (*OWN, torch.float16, torch.bfloat16)
IS_NEG = torch.Tensor.is_neg


CODES = torch.uint8  # the dtype of 8-bit state


class Leaf:
    """One parameter.

    Args:
        tensor: the parameter.
        name: for messages.
        offload: keep a master on the CPU for what a step cannot update where it lies.

    Attributes:
        axes: of the tensor from the slowest to the fastest where it is dense in an order that NumPy has no
            name for, such as channels_last; else None. Arrays and state have them in this order.
        master: what a step updates in place of the tensor; None where that is the tensor itself.

    Raises:
        TypeError, ValueError: with the way out, where it is neither.
    """

    def __init__(self, tensor: Any, name: str, offload: bool) -> None:
        self.tensor, self.name = tensor, name
        _check(tensor, name)
        self.axes: tuple[int, ...] | None = None
        self.master: Any = None
        self._version = 0
        if is_resident(tensor):
            self.axes = _memory_order(tensor)
        elif offload:
            dtype = tensor.dtype if tensor.dtype in OWN else torch.float32
            self.master = torch.empty(tensor.shape, dtype=dtype, pin_memory=tensor.is_cuda)
            self.take()
        else:
            raise ValueError(
                f"parameter {name} is of {tensor.dtype} on {tensor.device}, and a step updates float32 and "
                "float64 on the CPU: pass offload=True, which keeps a master of it and its state there, or "
                "move the model, as in model.to('cpu', torch.float32), before the optimizer is made"
            )

    @property
    def array(self) -> Array:
        """What a step updates; over memory, so always of the present one."""
        return array_of(self.tensor if self.master is None else self.master, self.axes)

    @property
    def dtype(self) -> Any:
        return (self.tensor if self.master is None else self.master).dtype

    def inward(self, value: Any) -> Any:
        """A tensor of the state as the array's own state is: in its order of axes, dtype and place."""
        if not isinstance(value, torch.Tensor) or value.dim() == 0:
            return value
        value = value.detach().to("cpu", None if value.dtype == CODES else self.dtype)
        turned = self.axes is not None and value.shape == self.tensor.shape
        return value.permute(self.axes) if turned else value

    def outward(self, array: Array) -> Any:
        """An array of the state as a tensor over it."""
        if array.dtype == np.uint16:
            tensor = torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
        else:
            tensor = torch.from_numpy(array)
        if self.axes is None or tensor.dim() != len(self.axes):
            return tensor
        return tensor.permute(np.argsort(self.axes).tolist())

    def take(self) -> None:
        """Copy the tensor into its master."""
        self.master.copy_(self.tensor.detach())
        self._version = self.tensor._version

    def follow(self) -> None:
        """The same where somebody else has written to the tensor since."""
        if self.tensor._version != self._version:
            self.take()

    def give(self) -> None:
        """Copy the master into the tensor."""
        with torch.no_grad():
            self.tensor.copy_(self.master)
        self._version = self.tensor._version

    def gradient(self, grad: Any) -> Any:
        """A gradient of the tensor as a step takes it."""
        if grad is None:
            return None
        if grad.layout is torch.sparse_coo:
            if grad.sparse_dim() != 1:
                raise ValueError(
                    f"the gradient of parameter {self.name} is sparse in {grad.sparse_dim()} dimensions; "
                    "rows can be, as nn.Embedding(sparse=True) makes them, or pass it through to_dense()"
                )
            return Rows(_plain(grad._indices()[0]), _plain(grad._values()))
        return _plain(grad, self.axes)


def is_resident(tensor: Any) -> bool:
    """Whether a step can update it where it lies."""
    return tensor.device.type == "cpu" and tensor.dtype in OWN


def _check(tensor: Any, name: str) -> None:
    if tensor.device.type == "meta":
        raise ValueError(
            f"parameter {name} is on the meta device, where there is no memory: give it some first, as in "
            "model.to_empty(device='cpu')"
        )
    if tensor.layout is not torch.strided or tensor.dtype not in DTYPES:
        raise TypeError(
            f"parameter {name} is a tensor of {tensor.dtype} and {tensor.layout}; it must be dense, of "
            "float32 or float64, or, with offload=True, of float16 or bfloat16"
        )


def _memory_order(tensor: Any) -> tuple[int, ...] | None:
    if tensor.dim() < 3 or tensor.is_contiguous():
        return None
    axes = tuple(sorted(range(tensor.dim()), key=lambda axis: -tensor.stride(axis)))
    if axes == tuple(reversed(range(tensor.dim()))) or not tensor.permute(axes).is_contiguous():
        return None
    return axes


def array_of(tensor: Any, axes: Sequence[int] | None = None) -> Array:
    """A tensor on the CPU as an array over its memory, its axes in this order."""
    tensor = tensor.detach()
    if axes is not None:
        tensor = tensor.permute(axes)
    if tensor.dtype is torch.bfloat16:
        if importlib.util.find_spec("ml_dtypes") is None:
            tensor = tensor.float()  # a copy, which a gradient may be
        else:
            bfloat16 = importlib.import_module("ml_dtypes").bfloat16
            halves: Array = tensor.view(torch.int16).numpy()
            return halves.view(bfloat16)
    array: Array = tensor.numpy()
    return array


def _plain(tensor: Any, axes: Sequence[int] | None = None) -> Array:
    return array_of(tensor.detach().to("cpu").resolve_neg(), axes)


class Gradients:
    """The gradients of parameters as a step takes them.

    Attributes:
        written: the parameters that had one when they were read.
    """

    def __init__(self, leaves: Sequence[Leaf]) -> None:
        self._leaves = leaves
        self._tensors = [leaf.tensor for leaf in leaves]
        self._resident = all(leaf.master is None for leaf in leaves)
        self._turned = [(i, leaf.axes) for i, leaf in enumerate(leaves) if leaf.axes is not None]
        self.written: list[Any] = []

    def read(self, grads: list[Any] | None = None) -> list[Any]:
        """For each parameter an array, `Rows`, or None; of the tensors given, or those that they have."""
        if grads is None:
            grads = [tensor.grad for tensor in self._tensors]
        present = [grad for grad in grads if grad is not None]
        if len(present) == len(grads):
            self.written = self._tensors
        else:
            pairs = zip(self._tensors, grads, strict=True)
            self.written = [tensor for tensor, grad in pairs if grad is not None]
        arrays = self._lent(grads, present) if self._resident else None
        if arrays is None:
            return [leaf.gradient(grad) for leaf, grad in zip(self._leaves, grads, strict=True)]
        return arrays

    def _lent(self, grads: list[Any], present: list[Any]) -> list[Any] | None:
        """All at once, None where one of them needs more than that."""
        if EXCHANGE is None or any(map(IS_NEG, present)):
            return None
        try:
            arrays = EXCHANGE.arrays(grads)
        except (BufferError, RuntimeError):  # sparse, of another dtype, elsewhere
            return None
        for i, axes in self._turned:
            arrays[i] = None if arrays[i] is None else arrays[i].transpose(axes)
        return arrays


def addresses(tensors: list[Any]) -> Any:
    """Where tensors lie and in what layout: equal as long as nothing of that has changed."""
    if EXCHANGE is not None:
        try:
            return EXCHANGE.places(tensors)
        except (BufferError, RuntimeError):
            pass
    return [(tensor.data_ptr(), tensor.stride()) for tensor in tensors]


def _exchange() -> _engine.Exchange | None:
    """PyTorch's interface in C, which it has since 2.10."""
    capsule = getattr(torch.Tensor, "__dlpack_c_exchange_api__", None)
    try:
        return None if capsule is None else _engine.Exchange(capsule)
    except BufferError:
        return None


EXCHANGE = _exchange()


def mark_written(tensors: Sequence[Any]) -> None:
    """So that a graph which still needs their old values is an error, as with PyTorch's own writes."""
    for part in [tensors] if TAKES_SEVERAL else tensors:
        torch.autograd.graph.increment_version(part)


def _takes_several() -> bool:
    """Whether this PyTorch's increment_version does."""
    try:
        torch.autograd.graph.increment_version([torch.empty(0)])
    except (TypeError, RuntimeError):
        return False
    return True


TAKES_SEVERAL = _takes_several()
