"""Device, precision, memory layout, threads: chosen by facts about hardware and model, never by a timing.

A timing would make two equal runs differ; --compile auto alone looks at one, on a GPU. What was chosen is printed, and
kept in environment.json.
"""

import contextlib
import math
import os
import platform
from dataclasses import dataclass, field
from pathlib import Path

import torch

from common.errors import BadInput

PRECISIONS = {"off": "float32", "bf16": "bfloat16", "fp16": "float16"}  # --amp and what it is called in files
# describe() in an environment.json: what decides what is computed, and what is only compared
DECIDING = ("device", "precision", "channels_last", "tf32", "cudnn_benchmark", "compiled")
TOLD = ("hardware", "threads", "torch")
SMALL = 2_000_000  # weights; below, a GPU waits for the launches of its kernels, which CUDA graphs save
# --compile auto: seconds of training from which it is on. An estimate: compiling takes about a minute, and must save a
# tenth of each step to pay in ten.
COMPILED_FROM = 600


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


def usable_cpus():
    """Processors this process may keep busy: of the machine's, those its affinity mask and its control group allow.

    torch counts the machine's alone, and in a container with a share of a large one starts far too many threads.
    """
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        count = min(count, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):  # no control group, or "max": no limit
        pass
    return max(count, 1)


@dataclass
class Hardware:
    """How a network is run: device, autocast dtype (None: float32), memory format, TF32 in what stays float32,
    cudnn's choice of the fastest algorithm, compiled or not (None: to be decided by decide_compile())."""

    device: torch.device
    dtype: torch.dtype | None
    channels_last: bool
    compiled: bool | None
    tf32: bool = False
    cudnn_benchmark: bool = False
    threads: int = field(default_factory=torch.get_num_threads)
    deterministic: bool = False

    @classmethod
    def choose(cls, args, before=None):
        """From --device, --amp, --compile, --deterministic. Raises BadInput for what the device cannot do.

        before: describe() of a run that is gone on with: its choice is kept, or a BadInput names what is not possible.
        """
        if before is not None:
            return cls._as_before(args, before)
        device, deterministic = pick_device(args.device), getattr(args, "deterministic", False)
        if args.amp == "fp16" and device.type == "cpu":
            raise BadInput("--amp fp16: needs a GPU; use --amp bf16 or --amp auto on a CPU")
        dtype = {
            "off": None,
            "bf16": torch.bfloat16,
            "fp16": torch.float16,
            "auto": torch.bfloat16 if native_bfloat16(device) else None,
        }[args.amp]
        on_cuda = device.type == "cuda"
        undecided = on_cuda and args.compile == "auto" and not deterministic
        return cls(
            device,
            dtype,
            channels_last=device.type != "mps",
            compiled=None if undecided else args.compile == "on",
            # --amp off means float32 as it is written
            tf32=on_cuda and args.amp != "off" and torch.cuda.get_device_capability(device) >= (8, 0),
            cudnn_benchmark=on_cuda and not deterministic,
            threads=_threads(),
            deterministic=deterministic,
        )

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
        if before["precision"] == "bfloat16" and args.amp == "auto" and not native_bfloat16(device):
            raise BadInput(
                f"--resume: the run so far was in bfloat16, which {hardware_name(device)} does not have and would be "
                "several times slower to imitate; go on where it is native, or give --amp bf16 to go on here"
            )
        args.device = device.type
        dtype = None if before["precision"] == "float32" else getattr(torch, before["precision"])
        kept = {name: before[name] for name in ("channels_last", "compiled", "tf32", "cudnn_benchmark")}
        threads = _threads(before["threads"])
        return cls(device, dtype, **kept, threads=threads, deterministic=getattr(args, "deterministic", False))

    def apply(self):
        """Make it so for this process."""
        torch.set_num_threads(self.threads)
        if self.device.type == "cuda":
            torch.backends.cudnn.benchmark = self.cudnn_benchmark
            torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = self.tf32
        if self.deterministic:
            # Where an operation has no way that is equal bit for bit, torch warns by name.
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
            torch.use_deterministic_algorithms(True, warn_only=True)

    def decide_compile(self, seconds_per_step, num_steps):
        """--compile auto, where it is open: True for a run long enough to make up for compiling."""
        if self.compiled is None:
            self.compiled = seconds_per_step() * num_steps >= COMPILED_FROM

    def differences(self, before):
        """In words, what may change the last bits beside the choices themselves: "" where it is all the same."""
        now = {**self.describe(), "torch": torch.__version__}
        differ = [name for name in TOLD if before[name] != now[name]]
        return ", ".join(f"{name} {before[name]} (now {now[name]})" for name in differ)

    def place(self, model):
        """The model on the device, in the chosen layout, compiled where that was chosen; forward_of() runs it.

        It is compiled in place, once: its state dict keeps its keys, and whoever calls it gets the compiled one.
        """
        model.to(self.device, memory_format=torch.channels_last if self.channels_last else torch.preserve_format)
        if self.compiled:
            # A graph for each shape, never one for several: which they are would depend on what the process met before,
            # and so would what is run uncompiled beyond the usual limit of eight.
            torch._dynamo.config.recompile_limit = 64
            model.compile(mode="reduce-overhead" if self.uses_graphs(model) else None, dynamic=False)
        return model

    def uses_graphs(self, model):
        """Whether a compiled model runs as CUDA graphs."""
        num_weights = sum(p.numel() for p in model.parameters())
        return bool(self.compiled) and self.device.type == "cuda" and num_weights < SMALL

    def forward_of(self, model):
        """x (B, C, H, W) -> float32 logits (B, K), run in the chosen precision."""
        graphs = self.uses_graphs(model)

        def forward(x):
            with self.autocast():
                logits = model(x).float()
            return logits.clone() if graphs else logits  # the next replay of a graph writes over what it gave

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
            "tf32": self.tf32,
            "cudnn_benchmark": self.cudnn_benchmark,
            "compiled": self.compiled,
            "threads": self.threads,
        }

    def __str__(self):
        d = self.describe()
        layout = "channels_last" if d["channels_last"] else "NCHW"
        compiled = {None: "compiled if that pays", True: "compiled", False: "not compiled"}[self.compiled]
        more = [name for name, on in (("TF32", self.tf32), ("cudnn.benchmark", self.cudnn_benchmark)) if on]
        more += ["deterministic"] if self.deterministic else []
        return ", ".join(
            [f"{d['device']} ({d['hardware']})", d["precision"], *more, layout, compiled, f"{d['threads']} threads"]
        )


def _threads(wanted=None):
    """Threads of a CPU's operations: as wanted or as torch would have it, but none without a processor of its own.

    OMP_NUM_THREADS, torch's own way to say it, has the last word.
    """
    if "OMP_NUM_THREADS" in os.environ:
        return torch.get_num_threads()
    return min(wanted or torch.get_num_threads(), usable_cpus())


def hardware_name(device):
    """The GPU's or the processor's name."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        with open("/proc/cpuinfo") as f:
            return next(line.split(":", 1)[1].strip() for line in f if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
