"""Device, precision, memory layout, threads: chosen by facts about hardware and model, never by a timing.

A timing would make two equal runs differ; --compile auto alone looks at one, on a GPU. What was chosen is printed, and
kept in environment.json.
"""

import contextlib
import math
import os
import platform
from argparse import Namespace
from collections.abc import Callable, Iterator
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
OWN_GROUPS, GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def pick_device(name: str) -> torch.device:
    """--device as a torch.device. `auto`: CUDA, else Apple's MPS, else the CPU. BadInput if it is not there."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    there = [kind for kind in available if available[kind]]
    if name not in ("auto", *there):
        raise BadInput(f"--device {name}: this machine or this PyTorch has none; there is {', '.join(there)}")
    return torch.device(there[0] if name == "auto" else name)


def native_bfloat16(device: torch.device) -> bool:
    """Whether the hardware multiplies bfloat16 itself; elsewhere it is emulated, several times slower than float32."""
    if device.type == "cuda":
        return torch.version.hip is not None or torch.cuda.get_device_capability(device) >= (8, 0)
    flags = (_cpuinfo("flags") or _cpuinfo("Features")).split()
    return device.type == "cpu" and not {"amx_bf16", "avx512_bf16", "bf16"}.isdisjoint(flags)


def hardware_name(device: torch.device) -> str:
    """The GPU's or the processor's name."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _cpuinfo(key):
    """What Linux says of the first processor; elsewhere nothing."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as f:
        return next((line.split(":", 1)[1].strip() for line in f if line.startswith(key)), "")
    return ""


def control_groups(controller: str) -> Iterator[Path]:
    """Folders of the control groups around this process (a container's, a Slurm job's): of v2, or v1's controller."""
    try:
        lines = OWN_GROUPS.read_text().splitlines()
    except OSError:  # no Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers or controller in controllers.split(","):
            mount = GROUPS / controller if controllers else GROUPS
            group = mount / path.lstrip("/")  # in a container, its own group is all there is, at the mount
            yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(mount))


def usable_cpus() -> int:
    """Processors this process may keep busy: of the machine's, those its affinity mask and its control groups allow.

    torch counts the machine's alone, and in a container with a share of a large one starts far too many threads.
    """
    counts = [len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()]
    for group in control_groups("cpu"):
        with contextlib.suppress(OSError, ValueError):  # not there, or "max": no limit
            quota, period = (group / "cpu.max").read_text().split()
            counts.append(max(1, math.ceil(int(quota) / int(period))))
    return min(counts)


def available_memory() -> int:
    """Bytes of memory that can be had without swapping, and without more than the process's control groups may have."""
    try:
        with open("/proc/meminfo") as f:
            left = [next(int(line.split()[1]) * 1024 for line in f if line.startswith("MemAvailable"))]
    except OSError:  # not Linux: half of what is built in
        left = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2]
    v2, v1 = ("memory.max", "memory.current", ""), ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")
    for group in control_groups("memory"):
        for limit, used, prefix in (v2, v1):
            with contextlib.suppress(OSError, ValueError):  # not there, or "max"
                stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
                cached = sum(int(stat.get(f"{prefix}{kind}_file", 0)) for kind in ("inactive", "active"))
                left.append(int((group / limit).read_text()) - int((group / used).read_text()) + cached)
    return max(0, min(left))


@dataclass
class Hardware:
    """How a network is run: device, precision of autocast, memory format, TF32 in what stays float32,
    cudnn's choice of the fastest algorithm, compiled or not (None: to be decided by decide_compile())."""

    device: torch.device
    precision: str = "float32"
    channels_last: bool = True
    tf32: bool = False
    cudnn_benchmark: bool = False
    compiled: bool | None = False
    threads: int = field(default_factory=torch.get_num_threads)
    deterministic: bool = False

    @classmethod
    def choose(cls, args: Namespace, before: dict | None = None) -> "Hardware":
        """From --device, --amp, --compile, --deterministic. Raises BadInput for what the device cannot do.

        before: describe() of a run that is gone on with: its choice is kept, or a BadInput names what is not possible.
        """
        if before is not None:
            return cls._as_before(args, before)
        device = pick_device(args.device)
        if args.amp == "fp16" and device.type == "cpu":
            raise BadInput("--amp fp16: needs a GPU; use --amp bf16 or --amp auto on a CPU")
        precision = PRECISIONS.get(args.amp, "bfloat16" if native_bfloat16(device) else "float32")
        choices = dict(compiled=args.compile == "on", threads=_threads(), deterministic=args.deterministic)
        chosen = cls(device, precision, device.type != "mps", **choices)
        if device.type == "cuda":
            # --amp off means float32 as it is written
            chosen.tf32 = args.amp != "off" and torch.cuda.get_device_capability(device) >= (8, 0)
            chosen.cudnn_benchmark = not args.deterministic
            if args.compile == "auto" and not args.deterministic:
                chosen.compiled = None
        return chosen

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
        kept = {name: before[name] for name in DECIDING if name != "device"}
        return cls(device, **kept, threads=_threads(before["threads"]), deterministic=args.deterministic)

    def apply(self) -> None:
        """Make it so for this process."""
        torch.set_num_threads(self.threads)
        if self.device.type == "cuda":
            torch.backends.cudnn.benchmark = self.cudnn_benchmark
            torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = self.tf32
        if self.deterministic:
            # Where an operation has no way that is equal bit for bit, torch warns by name.
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
            torch.use_deterministic_algorithms(True, warn_only=True)

    def decide_compile(self, seconds_per_step: Callable[[], float], num_steps: int) -> None:
        """--compile auto on a GPU: yes for a run long enough to make up for compiling."""
        self.compiled = seconds_per_step() * num_steps >= COMPILED_FROM

    def differences(self, before: dict) -> str:
        """In words, what may change the last bits beside the choices themselves: "" where it is all the same."""
        now = {**self.describe(), "torch": torch.__version__}
        differ = [name for name in TOLD if before[name] != now[name]]
        return ", ".join(f"{name} {before[name]} (now {now[name]})" for name in differ)

    def place(self, model: torch.nn.Module) -> torch.nn.Module:
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

    def uses_graphs(self, model: torch.nn.Module) -> bool:
        """Whether a compiled model runs as CUDA graphs."""
        return self.device.type == "cuda" and sum(p.numel() for p in model.parameters()) < SMALL

    def forward_of(self, model: torch.nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
        """x (B, C, H, W) -> float32 logits (B, K), run in the chosen precision."""

        def forward(x):
            with self.autocast():
                return model(x).float()

        if self.compiled and self.uses_graphs(model):
            return lambda x: forward(x).clone()  # the next replay of a graph writes over what it gave
        return forward

    def autocast(self):
        if self.precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, getattr(torch, self.precision))

    def scaler(self) -> torch.amp.GradScaler:
        """Loss scaling, which float16 alone needs."""
        return torch.amp.GradScaler(self.device.type, enabled=self.precision == "float16")

    def describe(self) -> dict:
        """For environment.json."""
        kept = {name: getattr(self, name) for name in (*DECIDING, "threads")}
        return {"hardware": hardware_name(self.device), **kept, "device": self.device.type}

    def __str__(self):
        return ", ".join(f"{name} {value}" for name, value in self.describe().items())


def _threads(wanted=None):
    """Threads of a CPU's operations: as wanted or as torch would have it, but none without a processor of its own.

    OMP_NUM_THREADS, torch's own way to say it, has the last word.
    """
    if "OMP_NUM_THREADS" in os.environ:
        return torch.get_num_threads()
    return min(wanted or torch.get_num_threads(), usable_cpus())
