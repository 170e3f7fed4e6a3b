"""Device, precision and layout follow from facts about hardware and flags."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from common import hardware as device_module
from common.errors import BadInput
from common.hardware import Hardware, hardware_name, native_bfloat16, pick_device
from data.images import FolderImages

CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
MPS = pytest.mark.skipif(not torch.backends.mps.is_available(), reason="no MPS device here")


def choose(device="cpu", amp="off", compile="off"):
    return Hardware.choose(SimpleNamespace(device=device, amp=amp, compile=compile, deterministic=False))


def with_devices(monkeypatch, *names):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in names)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in names)


@pytest.mark.parametrize(
    "there, chosen", [((), "cpu"), (("mps",), "mps"), (("cuda",), "cuda"), (("cuda", "mps"), "cuda")]
)
def test_auto_takes_cuda_then_mps_then_the_cpu(monkeypatch, there, chosen):
    with_devices(monkeypatch, *there)
    assert pick_device("auto").type == chosen


@pytest.mark.parametrize("name", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_bad_input(monkeypatch, name):
    with_devices(monkeypatch)
    with pytest.raises(BadInput) as found:
        pick_device(name)
    (message,) = found.value.messages
    assert message.startswith(f"--device {name}: ") and "cpu" in message  # which there is


def test_the_cpu_is_always_there():
    assert pick_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("native, precision", [(True, "bfloat16"), (False, "float32")])
def test_auto_takes_bfloat16_only_where_the_hardware_multiplies_it(monkeypatch, native, precision):
    monkeypatch.setattr(device_module, "native_bfloat16", lambda device: native)
    assert choose(amp="auto").precision == precision
    assert choose(amp="off").precision == "float32"
    assert choose(amp="bf16").precision == "bfloat16"


@pytest.mark.parametrize(
    "flags, native", [("fpu avx2", False), ("fpu avx512_bf16", True), ("amx_bf16 avx2", True), ("avx512f", False)]
)
def test_a_processor_says_in_its_flags_whether_it_has_bfloat16(monkeypatch, tmp_path, flags, native):
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nmodel name\t: Some CPU @ 2:1\nflags\t\t: {flags}\n")
    monkeypatch.setattr(device_module, "open", lambda path, *a: open(tmp_path / "cpuinfo", *a), raising=False)
    assert native_bfloat16(torch.device("cpu")) is native
    assert hardware_name(torch.device("cpu")) == "Some CPU @ 2:1"


def test_where_the_processor_cannot_be_asked_it_is_float32(monkeypatch):
    def missing(path, *_):
        raise FileNotFoundError(path)

    monkeypatch.setattr(device_module, "open", missing, raising=False)
    assert native_bfloat16(torch.device("cpu")) is False
    assert hardware_name(torch.device("cpu"))


def test_float16_on_a_cpu_is_bad_input():
    with pytest.raises(BadInput, match="--amp fp16"):
        choose(amp="fp16")


@pytest.mark.parametrize("flag, compiled", [("auto", False), ("off", False), ("on", True)])
def test_on_a_cpu_compiling_is_off_unless_asked_for(flag, compiled):
    assert choose(compile=flag).compiled is compiled


def on_cuda(monkeypatch, capability=(8, 0), **flags):
    """What would be chosen on a GPU that is not here."""
    with_devices(monkeypatch, "cuda")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    given = {"device": "auto", "amp": "auto", "compile": "auto", "deterministic": False, **flags}
    return Hardware.choose(SimpleNamespace(**given))


def test_on_a_gpu_only_a_long_run_is_compiled(monkeypatch):
    for steps, compiled in ((1000, False), (100_000, True)):
        hardware = on_cuda(monkeypatch)
        assert hardware.compiled is None
        hardware.decide_compile(lambda: 0.01, steps)
        assert hardware.compiled is compiled


@pytest.mark.parametrize(
    "flags, capability, precision, tf32, cudnn_benchmark",
    [
        ({}, (8, 0), "bfloat16", True, True),
        ({}, (7, 5), "float32", False, True),
        ({"amp": "off"}, (9, 0), "float32", False, True),
        ({"amp": "fp16"}, (8, 6), "float16", True, True),
        ({"deterministic": True}, (8, 0), "bfloat16", True, False),
    ],
)
def test_a_gpus_arithmetic_follows_from_what_it_can(monkeypatch, flags, capability, precision, tf32, cudnn_benchmark):
    hardware = on_cuda(monkeypatch, capability, **flags)
    assert (hardware.precision, hardware.tf32, hardware.cudnn_benchmark) == (precision, tf32, cudnn_benchmark)
    assert hardware.compiled is (False if flags.get("deterministic") else None)  # equal runs: nothing is timed


def test_small_networks_alone_run_as_cuda_graphs():
    hardware = Hardware(torch.device("cuda"), compiled=True)
    small, large = nn.Linear(10, 10), nn.Linear(2000, 2000)
    assert hardware.uses_graphs(small) and not hardware.uses_graphs(large)
    assert not choose(compile="on").uses_graphs(small)


def test_a_compiled_network_gives_the_same_and_is_saved_the_same():
    plain, hardware, x = nn.Sequential(nn.Linear(4, 3), nn.ReLU()), choose(compile="on"), torch.randn(5, 4)
    compiled = hardware.place(copy.deepcopy(plain))
    torch.testing.assert_close(hardware.forward_of(compiled)(x), plain(x))
    assert compiled.state_dict().keys() == plain.state_dict().keys()


def test_each_shape_has_a_graph_of_its_own_whatever_came_before(monkeypatch):
    graphs, real = [], nn.Module.compile

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(nn.Module, "compile", lambda self, mode, **how: real(self, backend=backend, **how))

    class Own(nn.Linear):  # PyTorch 2.9 compiles none of its own modules alone
        def forward(self, x):
            return super().forward(x) + 1

    forward = (hardware := choose(compile="on")).forward_of(hardware.place(Own(4, 3)))
    sizes = [50, 13, 500, 77, 60, 31, 19, 8, 7, 6, 5, 4]
    for size in [*sizes, *sizes]:
        forward(torch.randn(size, 4))
    assert len(graphs) == len(sizes)


@pytest.mark.parametrize(
    "limit, cpus", [("150000 100000", 2), ("max 100000", 8), ("1000 100000", 1), ("3200000 100000", 8)]
)
@pytest.mark.parametrize("group", [".", "slice", "slice/job"])
def test_threads_are_no_more_than_the_control_groups_may_use(monkeypatch, tmp_path, limit, cpus, group):
    (tmp_path / "own").write_text("0::/slice/job\n")
    (tmp_path / group).mkdir(parents=True, exist_ok=True)
    (tmp_path / group / "cpu.max").write_text(limit)
    monkeypatch.setattr(device_module, "OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(device_module, "GROUPS", tmp_path)
    monkeypatch.setattr(device_module.os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert device_module.usable_cpus() == cpus == choose().threads
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    assert choose().threads == 64  # said by hand


def test_only_float16_scales_its_loss():
    assert not choose().scaler().is_enabled()
    assert not choose(amp="bf16").scaler().is_enabled()


def test_logits_are_float32_whatever_the_precision():
    hardware = choose(amp="bf16")
    model = hardware.place(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 2)))
    forward, x = hardware.forward_of(model), torch.randn(2, 3, 8, 8)
    assert forward(x).dtype == torch.float32
    assert not torch.equal(forward(x), model(x))  # it did run in bfloat16
    torch.testing.assert_close(forward(x), model(x), atol=0.05, rtol=0.05)
    assert all(p.dtype == torch.float32 for p in model.parameters())


def test_without_mixed_precision_the_network_runs_as_it_is():
    hardware = choose()
    model = hardware.place(nn.Linear(4, 2))
    x = torch.randn(3, 4)
    assert torch.equal(hardware.forward_of(model)(x), model(x))


def test_the_layout_changes_no_result_beyond_rounding():
    torch.manual_seed(0)
    model, x = nn.Conv2d(3, 4, 3), torch.randn(2, 3, 8, 8)
    before = model(x)
    placed = choose().place(model)
    assert placed.weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(placed(x), before)


def test_what_was_chosen_can_be_printed_and_kept():
    described = choose(amp="bf16").describe()
    assert described["device"] == "cpu" and described["precision"] == "bfloat16" and described["compiled"] is False
    assert described["threads"] == torch.get_num_threads() and described["hardware"]
    assert "bfloat16" in str(choose(amp="bf16")) and "float32" in str(choose())


@pytest.mark.parametrize("device", [pytest.param("cuda", marks=CUDA), pytest.param("mps", marks=MPS)])
@pytest.mark.parametrize("amp", ["off", "auto", "bf16", "fp16"])
def test_a_gpu_takes_a_training_step(device, amp):
    hardware = choose(device, amp)
    model = hardware.place(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)))
    optimizer, scaler = torch.optim.SGD(model.parameters(), 0.1), hardware.scaler()
    logits = hardware.forward_of(model)(torch.randn(4, 3, 8, 8, device=hardware.device))
    assert logits.dtype == torch.float32
    before = model[3].weight.detach().clone()
    scaler.scale(logits.square().mean()).backward()
    scaler.step(optimizer)
    scaler.update()
    assert model[3].weight.isfinite().all()
    assert scaler.is_enabled() == (amp == "fp16")
    assert amp == "fp16" or not torch.equal(model[3].weight, before)


# ------------------------------------------------------------------------------------------------ control groups

UNIT = 2**23  # bytes: a few of them are less than any machine has free
UNLIMITED = 9223372036854771712  # what v1 says where there is no limit


def v2(limit, used, cached=0):
    """The files of a group, of sizes in UNIT; cached: what of used is a disk cache."""
    stat = f"anon 1\nfile 2\ninactive_file {cached * UNIT // 2}\nactive_file {cached * UNIT // 2}"
    limit = limit if limit == "max" else limit * UNIT
    return {"memory.max": limit, "memory.current": used * UNIT, "memory.stat": stat}


def v1(limit, used, cached=0):
    stat = f"inactive_file 7\ntotal_inactive_file {cached * UNIT // 2}\ntotal_active_file {cached * UNIT // 2}"
    limit = limit if limit == UNLIMITED else limit * UNIT
    return {"memory.limit_in_bytes": limit, "memory.usage_in_bytes": used * UNIT, "memory.stat": stat}


def control_groups(tmp_path, monkeypatch, own, groups):
    """A /proc/self/cgroup and the files of groups: {folder: {file: content}}."""
    (tmp_path / "cgroup").write_text(own)
    for folder, files in groups.items():
        (tmp_path / "groups" / folder).mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (tmp_path / "groups" / folder / name).write_text(f"{content}\n")
    monkeypatch.setattr(device_module, "OWN_GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(device_module, "GROUPS", tmp_path / "groups")


V1 = "12:cpu,cpuacct:/elsewhere\n5:memory:{}\n0::/\n"
LEFT = {
    "v2, a container": ("0::/\n", {"": v2(6, 2)}, 4),
    "v2, a job below a slice": ("0::/slice/job\n", {"slice": v2(6, 3), "slice/job": v2("max", 1)}, 3),
    "v2, the tightest counts": ("0::/a/b\n", {"a": v2(9, 2), "a/b": v2(6, 2)}, 4),
    "v2, its cache is free": ("0::/\n", {"": v2(6, 6, 4)}, 4),
    "v2, more than its limit": ("0::/\n", {"": v2(6, 7)}, 0),
    "v1, a container": (V1.format("/docker/0123"), {"memory": v1(6, 2)}, 4),  # its group is mounted as the root
    "v1, a Slurm job": (
        V1.format("/slurm/uid_1/job_2/step_0"),
        {"memory/slurm/uid_1/job_2": v1(6, 4, 2), "memory/slurm/uid_1/job_2/step_0": v1(UNLIMITED, 1)},
        4,
    ),
}


@pytest.mark.parametrize(("own", "groups", "left"), LEFT.values(), ids=LEFT)
def test_memory_is_what_the_control_group_has_left(tmp_path, monkeypatch, own, groups, left):
    control_groups(tmp_path, monkeypatch, own, groups)
    assert device_module.available_memory() == left * UNIT


@pytest.mark.parametrize("own", ["0::/\n", V1.format("/"), "1:name=systemd:/x\n", ""])
def test_without_a_limit_memory_is_the_machines(tmp_path, monkeypatch, own):
    control_groups(tmp_path, monkeypatch, own, {"": v2("max", 5), "memory": v1(UNLIMITED, 5)})
    found = device_module.available_memory()
    monkeypatch.setattr(device_module, "OWN_GROUPS", tmp_path / "not there")
    assert found == pytest.approx(device_module.available_memory(), rel=0.3)  # others use the machine


def test_a_folder_in_a_small_container_is_streamed(tmp_path, monkeypatch):
    images, rows = FolderImages(tmp_path, [f"{i}.png" for i in range(1000)], 64, 3), np.arange(1000)  # 12.3 MB
    control_groups(tmp_path, monkeypatch, "0::/\n", {"": v2(4, 1)})  # 25.2 MB are left: half of it is enough
    assert images.fits_in_memory(rows)
    control_groups(tmp_path, monkeypatch, "0::/\n", {"": v2(4, 2)})
    assert not images.fits_in_memory(rows)
