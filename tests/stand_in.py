"""A device that stands in for an accelerator: what works on it does not rely on the CPU's memory.

Its tensors say that they lie on `stand_in:0`, and the CPU computes them. As on a GPU, operations
refuse tensors of two devices, and numpy cannot see a tensor. It has its own kind of memory, threads
of autograd and PyTorch's dispatch, but no streams: everything is done at once. It is built from
PyTorch's experimental way to write a device in Python.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest import mock

import torch
from torch.utils._pytree import tree_map
from torch.utils.backend_registration import (
    _DummyBackendModule,
    _setup_privateuseone_for_python_backend,
)

KIND = "stand_in"
META = torch._C.DispatchKeySet(torch._C.DispatchKey.Meta)  # its operations see no memory
memory: dict[int, torch.UntypedStorage] = {}  # the CPU's storage for each of the device's
copies_to_host: Counter[str] = Counter()  # by operation: what a GPU would have to wait for
is_active = False


class Module(_DummyBackendModule):
    def is_available(self) -> bool:
        return is_active


def is_on_stand_in(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.device.type == KIND


def on_cpu(tensor: torch.Tensor) -> torch.Tensor:
    """The CPU's view of the memory of a tensor on the device."""
    storage = memory[tensor.untyped_storage()._cdata]
    place = tensor.storage_offset(), tensor.size(), tensor.stride()
    return torch.empty(0, dtype=tensor.dtype).set_(storage, *place)


def view(base: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A tensor in the storage of ``base``, with the shape of ``like``."""
    place = like.size(), like.stride(), like.storage_offset()
    return torch.ops.aten.as_strided.default.redispatch(META, base, *place)


def on_stand_in(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor on the device, whose memory is that of a tensor on the CPU."""
    base = torch._C._acc.create_empty_tensor([0], tensor.dtype)
    memory[base.untyped_storage()._cdata] = tensor.untyped_storage()
    return view(base, tensor)


def compute(operation: Any, *args: Any, **kwargs: Any) -> Any:
    """Do an operation of PyTorch that has an argument on the device."""
    name = operation.overloadpacket.__name__
    if name == "_copy_from":  # the one operation of two devices
        source, target = (on_cpu(t) if is_on_stand_in(t) else t for t in args[:2])
        copies_to_host[name] += not is_on_stand_in(args[1])
        target.copy_(source)
        return args[1]
    copies_to_host[name] += name == "_local_scalar_dense"  # `item()`
    pairs: list[tuple[torch.Tensor, torch.Tensor]] = []  # on the device, on the CPU

    def argument(value: Any) -> Any:
        if is_on_stand_in(value):
            pairs.append((value, on_cpu(value)))
            return pairs[-1][1]
        if isinstance(value, torch.Tensor) and value.dim():
            raise RuntimeError(f"{name}: tensors are on two devices, {KIND} and {value.device}")
        return torch.device("cpu") if isinstance(value, torch.device) else value

    arguments, options = tree_map(argument, (args, kwargs))
    results = operation(*arguments, **options)
    for original, copy in pairs:
        if original.size() != copy.size():  # an `out` that has grown
            place = copy.storage_offset(), copy.size(), copy.stride()
            set_place = torch.ops.aten.set_.source_Storage_storage_offset
            set_place.redispatch(META, original, original.untyped_storage(), *place)
    return tree_map(partial(result, pairs), results)


def result(pairs: list[tuple[torch.Tensor, torch.Tensor]], value: Any) -> Any:
    """What an operation returns: an argument itself, a view of one, or a new tensor."""
    if not isinstance(value, torch.Tensor):
        return value
    for original, copy in pairs:
        if value is copy:
            return original
    for original, copy in pairs:
        if value.untyped_storage()._cdata == copy.untyped_storage()._cdata:
            assert value.dtype == original.dtype
            return view(original, value)
    return on_stand_in(value)


def refuse_address(tensor: torch.Tensor) -> int:
    raise RuntimeError(f"the memory of a tensor on {tensor.device} is not the CPU's")


def pickled(tensor: torch.Tensor, _protocol: int) -> tuple[Any, ...]:
    """What a file holds: the numbers, and where they lay."""
    place = tensor.dtype, str(tensor.device), tensor.requires_grad
    return torch._utils._rebuild_device_tensor_from_cpu_tensor, (tensor.detach().cpu(), *place)


def register() -> list[torch.library.Library]:
    """Make PyTorch know the device, for the rest of this process."""
    _setup_privateuseone_for_python_backend(KIND, backend_module=Module())
    fallback, kernels = (torch.library.Library(name, "IMPL") for name in ("_", "aten"))
    fallback.fallback(compute, "PrivateUse1")
    # PyTorch's own way to this operation warns of an output that grows.
    kernels.impl("mse_loss", partial(compute, torch.ops.aten.mse_loss.default), "PrivateUse1")
    own_methods = {
        "data_ptr": refuse_address,
        "__deepcopy__": lambda self, _: self.detach().clone(),
        "__reduce_ex__": pickled,
    }
    for name, own in own_methods.items():
        usual = getattr(torch.Tensor, name)

        def choose(self: Any, *args: Any, usual: Any = usual, own: Any = own) -> Any:
            return (own if is_on_stand_in(self) else usual)(self, *args)

        setattr(torch.Tensor, name, choose)
    return [fallback, kernels]


NUM_ACCELERATORS = (
    torch.accelerator.device_count()
)  # real ones; PyTorch allows one kind in a process
# Now, because autograd counts the devices once. Kept, because PyTorch forgets a deleted library.
libraries = [] if NUM_ACCELERATORS else register()


@contextmanager
def stand_in(free_bytes: int = 0) -> Iterator[torch.device]:
    """Inside, the device is this machine's accelerator, with so much free memory."""
    global is_active  # noqa: PLW0603 (PyTorch asks the hook of the process)
    copies_to_host.clear()
    is_active = True
    info = free_bytes, 2**40
    free = mock.patch.object(torch.accelerator, "get_memory_info", return_value=info)
    pinned = mock.patch.object(torch.Tensor, "pin_memory", torch.Tensor.clone)
    try:
        with free, pinned:
            yield torch.device(KIND, 0)
    finally:
        is_active = False
        memory.clear()
