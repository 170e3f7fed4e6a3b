"""Device, precision and layout follow from facts about hardware and flags."""

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from common import hardware as device_module
from common.errors import BadInput
from common.hardware import Hardware, hardware_name, native_bfloat16, pick_device

CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
MPS = pytest.mark.skipif(not torch.backends.mps.is_available(), reason="no MPS device here")


def choose(device="cpu", amp="off", compile="off"):
    return Hardware.choose(SimpleNamespace(device=device, amp=amp, compile=compile))


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
    assert found.value.messages == [f"--device {name}: this machine or this PyTorch has none; there is cpu"]


def test_the_cpu_is_always_there():
    assert pick_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("native, dtype", [(True, torch.bfloat16), (False, None)])
def test_auto_takes_bfloat16_only_where_the_hardware_multiplies_it(monkeypatch, native, dtype):
    monkeypatch.setattr(device_module, "native_bfloat16", lambda device: native)
    assert choose(amp="auto").dtype == dtype
    assert choose(amp="off").dtype is None
    assert choose(amp="bf16").dtype == torch.bfloat16


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
    with pytest.raises(BadInput, match="--amp fp16: needs a GPU"):
        choose(amp="fp16")


@pytest.mark.parametrize("flag, compiled", [("auto", False), ("off", False), ("on", True)])
def test_on_a_cpu_compiling_is_off_unless_asked_for(flag, compiled):
    hardware = choose(compile=flag)
    hardware.decide_compile(lambda: pytest.fail("nothing is measured here"), 10)
    assert hardware.compiled is compiled


def on_cuda(monkeypatch, capability=(8, 0), **flags):
    """What would be chosen on a GPU that is not here."""
    with_devices(monkeypatch, "cuda")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    return Hardware.choose(SimpleNamespace(**{"device": "auto", "amp": "auto", "compile": "auto", **flags}))


def test_on_a_gpu_only_a_long_run_is_compiled(monkeypatch):
    for steps, compiled in ((1000, False), (100_000, True)):
        hardware = on_cuda(monkeypatch)
        assert hardware.compiled is None
        hardware.decide_compile(lambda: 0.01, steps)
        assert hardware.compiled is compiled


@pytest.mark.parametrize(
    "flags, capability, dtype, tf32, cudnn_benchmark",
    [
        ({}, (8, 0), torch.bfloat16, True, True),
        ({}, (7, 5), None, False, True),
        ({"amp": "off"}, (9, 0), None, False, True),
        ({"amp": "fp16"}, (8, 6), torch.float16, True, True),
        ({"deterministic": True}, (8, 0), torch.bfloat16, True, False),
    ],
)
def test_a_gpus_arithmetic_follows_from_what_it_can(monkeypatch, flags, capability, dtype, tf32, cudnn_benchmark):
    hardware = on_cuda(monkeypatch, capability, **flags)
    assert (hardware.dtype, hardware.tf32, hardware.cudnn_benchmark) == (dtype, tf32, cudnn_benchmark)
    assert hardware.compiled is (False if flags.get("deterministic") else None)  # equal runs: nothing is timed


def test_small_networks_alone_run_as_cuda_graphs():
    hardware = Hardware(torch.device("cuda"), None, channels_last=True, compiled=True)
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
def test_threads_are_no_more_than_the_container_may_use(monkeypatch, tmp_path, limit, cpus):
    (tmp_path / "cpu.max").write_text(limit)
    monkeypatch.setattr(device_module, "Path", lambda name: tmp_path / "cpu.max")
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
