"""Device, precision and memory layout: chosen by facts about hardware and model, never by a timing.

A timing would make two equal runs differ. What was chosen is printed, and kept in environment.json.
"""

import contextlib
import os
import platform
from dataclasses import dataclass

import torch

from errors import BadInput

PRECISIONS = {"off": "float32", "bf16": "bfloat16", "fp16": "float16"}  # --amp and what it is called in files
# describe() in an environment.json: the values that decide what is computed, and what is only compared
DECIDING = {
    "device": ("cuda", "mps", "cpu"),
    "precision": tuple(PRECISIONS.values()),
    "channels_last": (True, False),
    "compiled": (True, False),
}
TOLD = ("hardware", "threads", "torch")


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


def make_deterministic():
    """Let two equal runs on a GPU be equal bit for bit. Where an operation has no such way, torch warns by name."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)


@dataclass
class Hardware:
    """How a network is run: device, autocast dtype (None: float32), memory format, compiled or not."""

    device: torch.device
    dtype: torch.dtype | None
    channels_last: bool
    compiled: bool

    @classmethod
    def choose(cls, args, before=None):
        """From --device, --amp, --compile. Raises BadInput for a combination that the device cannot do.

        before: describe() of a run that is gone on with: its choice is kept, or a BadInput names what is not possible.
        """
        if before is not None:
            return cls._as_before(args, before)
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

    @classmethod
    def _as_before(cls, args, before):
        asked = {"device": args.device, "precision": PRECISIONS.get(args.amp, "auto")}
        asked["compiled"] = {"on": True, "off": False}.get(args.compile, "auto")
        for name, flag in (("device", "device"), ("precision", "amp"), ("compiled", "compile")):
            if flag in args.given and asked[name] not in ("auto", before[name]):
                raise BadInput(
                    f"--{flag} {getattr(args, flag)}: the run so far had {name} {before[name]}; leave the flag out"
                )
        try:
            device = pick_device(before["device"])
        except BadInput:
            raise BadInput(f"--resume: the run so far was on {before['device']}, which this machine has not") from None
        args.device = device.type
        dtype = None if before["precision"] == "float32" else getattr(torch, before["precision"])
        return cls(device, dtype, before["channels_last"], before["compiled"])

    def differences(self, before):
        """In words, what may change the last bits beside the choices themselves: "" where it is all the same."""
        now = {**self.describe(), "torch": torch.__version__}
        differ = [name for name in TOLD if before[name] != now[name]]
        return ", ".join(f"{name} {before[name]} (now {now[name]})" for name in differ)

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


def check_description(found, file):
    """BadInput when an environment.json lacks something of Hardware.describe(), or has it as nothing that can be."""
    wrong = [
        name
        for name in (*DECIDING, *TOLD)
        if name not in found or found[name] not in DECIDING.get(name, found.values())
    ]
    if wrong:
        told = ", ".join(f"{name} {found.get(name)!r:.40}" for name in wrong)
        raise BadInput(f"{file}: {told} cannot have been written by a run; take an intact copy")


def hardware_name(device):
    """The GPU's or the processor's name."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        with open("/proc/cpuinfo") as f:
            return next(line.split(":", 1)[1].strip() for line in f if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
