"""Device, precision and memory layout: chosen by facts about hardware and model, never by a timing.

A timing would make two equal runs differ. What was chosen is printed, and kept in environment.json.
"""

import contextlib
import platform
from dataclasses import dataclass

import torch

from errors import BadInput


def pick_device(name):
    """--device as a torch.device. `auto`: CUDA, else Apple's MPS, else the CPU. BadInput if it is not there."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind, there in available.items() if there)
    if not available[name]:
        present = ", ".join(kind for kind, there in available.items() if there)
        raise BadInput(f"--device {name}: this machine or this PyTorch has none; there is {present}")
    return torch.device(name)


def native_bfloat16(device):
    """Whether the hardware multiplies bfloat16 itself; elsewhere it is emulated, several times slower than float32."""
    if device.type == "cuda":
        return torch.version.hip is not None or torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        try:
            with open("/proc/cpuinfo") as f:
                flags = next((line for line in f if line.startswith(("flags", "Features"))), "").split()
        except OSError:  # no such list here: float32 is never wrong
            return False
        return bool({"amx_bf16", "avx512_bf16", "bf16"} & set(flags))
    return False


@dataclass
class Hardware:
    """How a network is run: device, autocast dtype (None: float32), memory format, compiled or not."""

    device: torch.device
    dtype: torch.dtype | None
    channels_last: bool
    compiled: bool

    @classmethod
    def choose(cls, args):
        """From --device, --amp, --compile. Raises BadInput for a combination that the device cannot do."""
        device = pick_device(args.device)
        if args.amp == "fp16" and device.type == "cpu":
            raise BadInput("--amp fp16: needs a GPU; use --amp bf16 or --amp auto on a CPU")
        dtype = {
            "off": None,
            "bf16": torch.bfloat16,
            "fp16": torch.float16,
            "auto": torch.bfloat16 if native_bfloat16(device) else None,
        }[args.amp]
        return cls(device, dtype, channels_last=device.type != "mps", compiled=args.compile == "on")

    def place(self, model):
        """The model on the device, in the chosen layout; call the result of forward_of() to run it."""
        return model.to(self.device, memory_format=torch.channels_last if self.channels_last else torch.preserve_format)

    def forward_of(self, model):
        """x (B, C, H, W) -> float32 logits (B, K), run in the chosen precision.

        The model itself stays as it is, so that its state dict has the same keys, compiled or not.
        """
        call = torch.compile(model) if self.compiled else model

        def forward(x):
            with self.autocast():
                return call(x).float()

        return forward

    def autocast(self):
        if self.dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def scaler(self):
        """Loss scaling, which float16 alone needs."""
        return torch.amp.GradScaler(self.device.type, enabled=self.dtype is torch.float16)

    def describe(self):
        return {
            "device": self.device.type,
            "hardware": hardware_name(self.device),
            "precision": str(self.dtype or torch.float32).removeprefix("torch."),
            "channels_last": self.channels_last,
            "compiled": self.compiled,
            "threads": torch.get_num_threads(),
        }

    def __str__(self):
        d = self.describe()
        layout = "channels_last" if d["channels_last"] else "NCHW"
        return (
            f"{d['device']} ({d['hardware']}), {d['precision']}, {layout}, "
            f"{'compiled' if d['compiled'] else 'not compiled'}, {d['threads']} threads"
        )


def hardware_name(device):
    """The GPU's or the processor's name."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        with open("/proc/cpuinfo") as f:
            return next(line.split(":", 1)[1].strip() for line in f if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
