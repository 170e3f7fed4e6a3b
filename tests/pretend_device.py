"""A GPU that is not there: tensors that say they are on cuda:0 or mps:0 while a CPU computes them.

    with PretendedDevice("cuda") as gpu:
        main_gen_teacher.main(["--dataset", "digits", "--device", "cuda", ...])

Whole scripts run, and what would go wrong on a GPU alone goes wrong here: tensors of two devices in one operation
(CUDA: by PyTorch's own rules, every operation is repeated on its FakeTensors), numpy() of what is not on the host,
float64 on MPS, waiting where nothing may wait. Kernels, their rounding and speed, mixed precision, compiling, random
numbers drawn on the device and the threads of a DataLoader are not pretended.
"""

import collections
import contextlib
from unittest import mock

import torch
import torch._dynamo  # looks once for a GPU: before there seems to be one
from torch._subclasses import fake_tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map

from data import augment

# What PyTorch's C++ takes the device for. It must know one that needs no driver, and whose backward pass no thread.
STAND_IN = torch.device("meta")
COPIES = ("_to_copy", "copy_")
# Their result depends on values, so that the host waits for them
WAITED_FOR = {"_local_scalar_dense", "equal", "is_nonzero", "nonzero", "masked_select", "bincount", "_unique2"}
NO_FAKE = (
    fake_tensor.DataDependentOutputException,
    fake_tensor.DynamicOutputShapeException,
    fake_tensor.UnsupportedOperatorException,
)


class DeviceTensor(torch.Tensor):
    """value: what it holds, on the CPU. gpu: its PretendedDevice."""

    __torch_function__ = torch._C._disabled_torch_function_impl
    device = property(lambda self: self.gpu.device)
    is_cpu = is_meta = property(lambda self: False)
    is_cuda = property(lambda self: self.gpu.device.type == "cuda")
    is_mps = property(lambda self: self.gpu.device.type == "mps")

    @staticmethod
    def __new__(cls, value, gpu):
        layout = {"strides": value.stride(), "storage_offset": value.storage_offset(), "dtype": value.dtype}
        self = torch.Tensor._make_wrapper_subclass(cls, value.shape, **layout, device=STAND_IN)
        self.value, self.gpu = value, gpu
        return self

    def __repr__(self, **_):
        return f"{self.value}, {self.device}"

    def __reduce_ex__(self, protocol):  # a file holds values
        return self.value.__reduce_ex__(protocol)

    def __deepcopy__(self, memo):
        copied = DeviceTensor(self.value.clone(), self.gpu)
        is_weight = isinstance(self, torch.nn.Parameter)
        return torch.nn.Parameter(copied, self.requires_grad) if is_weight else copied

    def __torch_dispatch__(self, *_):
        raise RuntimeError("used when the pretended device was gone")


class PretendedDevice(contextlib.ExitStack):
    """kind: "cuda" or "mps". count: how many GPUs. free: bytes of memory.

    waited: a Counter of what the host waited for.
    may_wait: whether it may, or a RuntimeError names what for.
    """

    def __init__(self, kind, count=1, free=2**40):
        super().__init__()
        self.device, self.count, self.free = torch.device(kind, 0), count, free
        self.waited, self.may_wait = collections.Counter(), True
        self.fake = fake_tensor.FakeTensorMode(allow_fallback_kernels=False) if kind == "cuda" else None
        self._repeated = set()
        self.generators = [torch.Generator() for _ in range(count)]
        if self.fake:
            with self.fake:  # looks once for a GPU: before there seems to be one
                torch.empty(1, device=kind)

    def __enter__(self):
        for module, functions in self._replaced().items():
            for name, function in functions.items():
                self.enter_context(mock.patch.object(module, name, function))
        overwrite = torch.__future__.get_overwrite_module_params_on_conversion()
        torch.__future__.set_overwrite_module_params_on_conversion(True)  # a tensor's kind cannot change in place
        self.callback(torch.__future__.set_overwrite_module_params_on_conversion, overwrite)
        augment._pixels.cache_clear()
        self.callback(augment._pixels.cache_clear)
        self.enter_context(_Named(self))
        self.enter_context(_Computed(self))
        return self

    def _replaced(self):
        if self.device.type == "mps":
            [generator] = self.generators
            state = {"get_rng_state": generator.get_state, "set_rng_state": generator.set_state}
            return {torch.backends.mps: {"is_available": lambda: True}, torch.mps: state}

        def generator(device):
            return self.generators[torch.device(device).index or 0]

        return {
            torch.cuda: {
                "is_available": lambda: True,
                "is_current_stream_capturing": lambda: False,
                "device_count": lambda: self.count,
                "get_device_capability": lambda device=None: (7, 5),  # float32: mixed precision is not pretended
                "get_device_name": lambda device=None: "pretended GPU",
                "mem_get_info": lambda device=None: (self.free, self.free),
                "manual_seed_all": lambda seed: [generator.manual_seed(seed) for generator in self.generators],
                "get_rng_state": lambda device="cuda": generator(device).get_state(),
                "set_rng_state": lambda state, device="cuda": generator(device).set_state(state),
                "synchronize": lambda device=None: None,
                "set_sync_debug_mode": lambda mode: setattr(self, "may_wait", mode != "error"),
            }
        }

    def wait(self, what):
        self.waited[what] += 1
        if not self.may_wait:
            raise RuntimeError(f"the host waits for the device: {what}")

    def is_meant(self, argument):
        """Whether an argument of a function names this device."""
        return isinstance(argument, str | torch.device) and str(argument).split(":")[0] == self.device.type

    def compute(self, func, args, kwargs):
        given = list(tree_iter((args, kwargs)))
        ours = {id(a.value): a for a in given if isinstance(a, DeviceTensor)}
        if not ours and not any(map(_is_stand_in, given)):
            return func(*args, **kwargs)
        name = func.overloadpacket.__name__
        target = kwargs.get("device") or (args[0].device if name == "copy_" else self.device)
        stays = target in (self.device, STAND_IN)
        self._check(name, func, args, kwargs, stays)

        def on_host(a):
            return a.value if isinstance(a, DeviceTensor) else torch.device("cpu") if _is_stand_in(a) else a

        def on_device(a):
            if not isinstance(a, torch.Tensor) or not stays:
                return a
            if self.device.type == "mps" and a.dtype == torch.float64:
                raise TypeError(f"{name}: MPS has no float64")
            return ours.get(id(a)) if id(a) in ours else DeviceTensor(a, self)

        kwargs = {key: value for key, value in kwargs.items() if key not in ("pin_memory", "non_blocking")}
        return tree_map(on_device, func(*tree_map(on_host, args), **tree_map(on_host, kwargs)))

    def _check(self, name, func, args, kwargs, stays):
        """What would fail on a real device, or make the host wait."""
        if name in COPIES:
            source = args[1] if name == "copy_" else args[0]
            at_once = not kwargs.get("non_blocking") and not (name == "copy_" and len(args) > 2 and args[2])
            if stays == isinstance(source, DeviceTensor):
                return
            if at_once:
                self.wait(f"copy to the {'device' if stays else 'host'}")
            elif self.device.type == "mps":
                raise RuntimeError("MPS: a copy that is not waited for may read what has been freed")
            return
        indices = args[1] if name in ("index", "index_put", "index_put_") else ()
        masks = any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in indices)
        if name in WAITED_FOR or masks:
            self.wait(name)
        if any(i is not None and not isinstance(i, DeviceTensor) for i in indices):
            self.wait("copy of an index to the device")
        if name == "convolution" and self.device.type == "mps" and not args[0].is_contiguous():
            raise RuntimeError("MPS: channels_last memory reaches a convolution, and so BatchNorm's backward pass")
        if self.fake is not None:
            self._repeat_on_fakes(func, args, kwargs)
        else:
            others = [a for a in tree_iter((args, kwargs)) if type(a) is torch.Tensor and a.ndim]
            if any(all(a is not i for i in indices) for a in others):
                raise RuntimeError(f"{name}: Expected all tensors to be on the same device")

    def _repeat_on_fakes(self, func, args, kwargs):
        alike = tree_map(lambda a: (a.device, a.dtype, a.shape) if isinstance(a, torch.Tensor) else a, (args, kwargs))
        if (key := f"{func} {alike}") in self._repeated:
            return
        self._repeated.add(key)

        def fake(a):
            if isinstance(a, torch.Tensor):
                device = self.device if isinstance(a, DeviceTensor) else "cpu"
                return torch.empty_strided(a.shape, a.stride(), dtype=a.dtype, device=device)
            return self.device if _is_stand_in(a) else a

        with _off(), self.fake, contextlib.suppress(*NO_FAKE):
            func(*tree_map(fake, args), **tree_map(fake, kwargs))


def _is_stand_in(a):
    return isinstance(a, torch.device) and a == STAND_IN


@contextlib.contextmanager
def _off():
    with torch.utils._python_dispatch._disable_current_modes(), torch._C.DisableTorchFunction():
        yield


class _Named(TorchFunctionMode):
    """In the arguments of Python's functions the device becomes the stand-in."""

    def __init__(self, gpu):
        self.gpu = gpu

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.device:
            return func(*args, **kwargs)
        if func is torch.Tensor.pin_memory:
            return args[0]
        if func is torch.Tensor.tolist and isinstance(args[0], DeviceTensor):
            self.gpu.wait("tolist")
            return args[0].value.tolist()
        meant = self.gpu.is_meant
        if func in (torch.tensor, torch.as_tensor) and meant(kwargs.get("device")):
            made = func(*args, **{**kwargs, "device": None})  # made of Python's values, which the stand-in would lose
            return made.to(STAND_IN)
        if func is torch.as_tensor and kwargs.get("device") is None and isinstance(args[0], DeviceTensor):
            return args[0]
        args = [STAND_IN if meant(a) else a for a in args]
        return func(*args, **{key: STAND_IN if meant(a) else a for key, a in kwargs.items()})


class _Computed(TorchDispatchMode):
    def __init__(self, gpu):
        super().__init__()
        self.gpu = gpu

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return self.gpu.compute(func, args, kwargs or {})
