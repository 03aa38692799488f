"""What needs a CUDA device: the Triton kernel as it really runs.

Each configuration compiles kernels of its own, so let several processes do it:
``pytest tests/test_gpu.py -n auto``.
"""

import pytest
import torch
from conftest import GOLDEN, check_published
from triton_cases import (
    CUTS,
    check,
    check_convolution,
    check_convolution_of_cut_out,
    check_cut_out,
    configuration,
    convolution,
    local_attention,
    maps,
    run,
)

from acmix_edu import ACmix
from acmix_edu import local_attention as plain_attention
from acmix_edu.fast import (
    _attention_trial,
    choice,
    triton_attention,
    triton_banded,
    triton_convolution,
)
from acmix_edu.fast import local_attention as fast_attention
from acmix_edu.fast.convolution import _convolution_trial

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
    pytest.mark.filterwarnings("ignore:Attempting to run cuBLAS"),  # in the thread of a backward
    pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning"),  # Inductor, in 2.11
]
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


@pytest.fixture(autouse=True)
def _float32_means_float32():
    """cuDNN would otherwise round the inputs of float32 convolutions to TF32."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


@pytest.fixture
def cuda() -> torch.device:
    return torch.device("cuda", torch.cuda.current_device())


def skip_without(dtype, device):
    if dtype == torch.bfloat16 and torch.cuda.get_device_capability(device) < (8, 0):
        pytest.skip("bfloat16 needs compute capability 8.0")


@pytest.mark.parametrize("seed", range(1000, 1300))
def test_configuration(seed, cuda):
    check(**configuration(seed, pixels=961), device=cuda)


@pytest.mark.parametrize("dtype", DTYPES[1:])
@pytest.mark.parametrize("seed", range(2000, 2040))
def test_half_precision(seed, dtype, cuda):
    skip_without(dtype, cuda)
    check(**configuration(seed, pixels=400), dtype=dtype, device=cuda)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", ["BCHW", "channels_last"])
@pytest.mark.parametrize("size", [(2, 4, 16, 56, 56), (2, 4, 64, 14, 14), (1, 4, 128, 7, 7)])
def test_the_maps_of_a_resnet(size, layout, dtype, cuda):
    skip_without(dtype, cuda)
    check(size, 7, 1, 1, True, layout, 0, dtype=dtype, device=cuda)


@pytest.mark.parametrize("seed", range(4000, 4060))
def test_convolution(seed, cuda):
    check_convolution(**convolution(seed, pixels=400), device=cuda)


@pytest.mark.parametrize("dtype", DTYPES[1:])
@pytest.mark.parametrize("seed", range(4100, 4130))
def test_convolution_in_half_precision(seed, dtype, cuda):
    skip_without(dtype, cuda)
    check_convolution(**convolution(seed, pixels=400), dtype=dtype, device=cuda)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", ["BCHW", "channels_last"])
@pytest.mark.parametrize("size", [(2, 4, 16, 56, 56), (2, 4, 64, 14, 14), (1, 4, 128, 7, 7)])
@pytest.mark.parametrize("stride", [1, 2])
def test_convolution_of_the_maps_of_a_resnet(size, stride, layout, dtype, cuda):
    skip_without(dtype, cuda)
    check_convolution(size, 3, stride, layout, 0, dtype=dtype, device=cuda)


def halo_attention(q, k, v, kernel_size, pe, stride, dilation):
    return fast_attention(q, k, v, kernel_size, pe, stride, dilation, backend="halo")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("side", [7, 30])  # bands, tiles
def test_halo_attention(side, dtype, cuda):
    """The form that others run when there is no kernel."""
    skip_without(dtype, cuda)
    check((2, 2, 16, side, side), 7, 1, 1, True, "BCHW", 0, dtype, cuda, attention=halo_attention)


@pytest.mark.parametrize("cut", CUTS)
def test_a_map_cut_out_of_a_wider_one(cut, cuda):
    check_cut_out(*cut, cuda)
    check_convolution_of_cut_out(*cut[:2], cuda)


@pytest.mark.parametrize("dtype", DTYPES)
def test_logits_of_ten_thousand(dtype, cuda):
    skip_without(dtype, cuda)
    check((1, 2, 16, 15, 19), 7, 1, 1, False, "BCHW", 0, dtype=dtype, device=cuda, scale=60)


def test_tf32_is_an_option(cuda):
    if torch.cuda.get_device_capability(cuda) < (8, 0):
        pytest.skip("TF32 needs compute capability 8.0")
    q, k, v = (f.float() for f in maps((2, 4, 16, 28, 28), "BCHW", cuda))
    exact = plain_attention(q.double(), k.double(), v.double(), 7)
    precise = local_attention(q, k, v, 7).double()
    torch.set_float32_matmul_precision("high")
    try:
        rounded = local_attention(q, k, v, 7).double()
    finally:
        torch.set_float32_matmul_precision("highest")
    assert (precise - exact).abs().max() < 1e-5
    assert (rounded - exact).abs().max() < 2e-2  # 10 bits of mantissa, logits of about 5


def test_tf32_is_an_option_of_the_convolution(cuda):
    if torch.cuda.get_device_capability(cuda) < (8, 0):
        pytest.skip("TF32 needs compute capability 8.0")
    inputs = [f.float() for f in maps((2, 4, 16, 28, 28), "BCHW", cuda)]
    inputs = [f.requires_grad_() for f in (*inputs, torch.randn(64, 12, 3, 3, device=cuda))]

    def results():
        out = triton_convolution.run(*inputs, 1)
        return out.detach(), *torch.autograd.grad(out.square().sum(), inputs)

    exact = results()
    torch.set_float32_matmul_precision("high")
    try:
        rounded = results()
    finally:
        torch.set_float32_matmul_precision("highest")
    for a, b in zip(exact, rounded, strict=True):
        assert 1e-6 < (a - b).norm() / a.norm() < 2e-3


def test_equal_bit_for_bit(cuda):
    inputs = (*maps((8, 4, 16, 56, 56), "BCHW", cuda), torch.randn(1, 1, 16, 56, 56, device=cuda))
    grad = torch.randn(8, 4, 16, 56, 56, device=cuda)
    first, *others = (run(local_attention, inputs, grad, torch.float16, 7, 1, 1) for _ in range(4))
    for other in others:
        for a, b in zip(first, other, strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(
    ("dtype", "precision"), [*((dtype, "highest") for dtype in DTYPES), (torch.float32, "high")]
)
@pytest.mark.parametrize(
    ("trial", "first"),
    [
        *((_attention_trial, d) for d in (12, 64, 128)),
        *((_convolution_trial, heads) for heads in (1, 4, triton_convolution.MOST_HEADS)),
    ],
)
def test_the_kernels_pass_their_trials(
    trial, first, dtype, precision, channels_last, stride, cuda, request
):
    """A warning would be an error."""
    skip_without(dtype, cuda)
    request.addfinalizer(lambda: torch.set_float32_matmul_precision("highest"))
    torch.set_float32_matmul_precision(precision)
    sizes = (first, 7, stride, 1) if trial is _attention_trial else (first, 3, stride)
    assert choice.passes(trial, sizes, channels_last, dtype, cuda)


@pytest.mark.parametrize("layout", ["BCHW", "channels_last"])
def test_compiled_in_one_graph(layout, cuda):
    compiled = torch.compile(local_attention, fullgraph=True)
    inputs = (*maps((2, 4, 16, 14, 14), layout, cuda), torch.randn(1, 1, 16, 14, 14, device=cuda))
    grad = torch.randn(2, 4, 16, 14, 14, device=cuda)
    both = [run(f, inputs, grad, torch.float32, 7, 1, 1) for f in (compiled, local_attention)]
    for a, b in zip(*both, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_captured_in_a_cuda_graph(cuda, monkeypatch):
    q, k, v = (f.half().requires_grad_() for f in maps((2, 4, 16, 28, 28), "BCHW", cuda))
    grad = torch.randn_like(q)

    def step():
        out = local_attention(q, k, v, 7)
        return out.detach(), *torch.autograd.grad(out, (q, k, v), grad)

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with monkeypatch.context() as patch, torch.cuda.graph(graph):
        patch.setattr(triton_attention, "log_table", None)  # the tables are there already
        captured = step()
    with torch.no_grad():
        q.copy_(torch.randn_like(q))
    graph.replay()
    for a, b in zip(captured, step(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.filterwarnings("ignore:TensorFloat32 tensor cores")  # float32 stays float32 here
def test_compiled_into_cuda_graphs(cuda):
    """On sizes that no call has seen before: what is made for a graph must not be kept."""
    module = ACmix(16, 16).to(cuda)
    compiled = torch.compile(module, mode="reduce-overhead", fullgraph=True)
    for size in ((15, 17), (19, 13)):
        x = torch.randn(2, 16, *size, device=cuda)
        for _ in range(4):  # warm-up, recording, replays
            module.zero_grad()  # the last step's lie in memory that the graph owns
            torch.compiler.cudagraph_mark_step_begin()
            out = compiled(x)
            out.sum().backward()
            replayed = out.detach().clone()
        torch.testing.assert_close(replayed, module(x).detach(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", DTYPES)
def test_memory_kept_for_the_backward_pass(dtype, cuda):
    skip_without(dtype, cuda)
    q, k, v = (f.to(dtype).requires_grad_() for f in maps((8, 4, 16, 56, 56), "BCHW", cuda))
    local_attention(q, k, v, 7)  # the tables are made once
    requested = "requested_bytes.all.current"  # not the blocks, which may be larger
    before = torch.cuda.memory_stats()[requested]
    out = local_attention(q, k, v, 7)
    kept = torch.cuda.memory_stats()[requested] - before
    lse = 4 * out.numel() // 16
    assert kept <= out.numel() * out.element_size() + lse


def test_more_than_two_to_the_31_numbers(cuda):
    size = (10_800, 4, 16, 56, 56)
    if torch.cuda.get_device_properties(cuda).total_memory < 40e9:
        pytest.skip("four maps of 4.3 GB each are needed")
    q, k, v = (torch.randn(size, dtype=torch.float16, device=cuda) for _ in range(3))
    assert q.numel() > 2**31
    out = local_attention(q, k, v, 7)[-2:]
    plain = plain_attention(q[-2:].float(), k[-2:].float(), v[-2:].float(), 7)
    torch.testing.assert_close(out.float(), plain, rtol=1e-2, atol=2e-3)


@pytest.mark.parametrize("dtype", DTYPES[1:])
def test_autocast_decides_the_dtype(dtype, cuda):
    skip_without(dtype, cuda)
    module = ACmix(16, 16, backend="triton").to(cuda)
    x = torch.randn(2, 16, 14, 14, device=cuda)
    with torch.autocast("cuda", dtype):
        y = module(x)
    y.float().sum().backward()
    torch.testing.assert_close(y.float(), module(x), rtol=5e-2, atol=5e-2)
    assert all(parameter.grad.dtype == torch.float32 for parameter in module.parameters())


@pytest.mark.parametrize("golden", GOLDEN, indirect=True)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_acmix(golden, published, layout, cuda):
    golden = {name: value.to(cuda) for name, value in golden.items()}
    golden["x"] = golden["x"].contiguous(memory_format=layout)
    published.backend = "triton"
    check_published(published.to(cuda), golden)


def test_the_kernel_is_the_default(cuda, monkeypatch):
    calls = []
    launches = [(triton_attention, "launch"), (triton_convolution, "convolve")]
    for module, name in [*launches, (triton_banded, "convolve")]:
        run, called = getattr(module, name), f"{module.__name__.split('_')[-1]}.{name}"
        monkeypatch.setattr(
            module, name, lambda *a, n=called, f=run, **k: calls.append(n) or f(*a, **k)
        )
    layer, x = ACmix(16, 16).to(cuda), torch.randn(1, 16, 14, 14, device=cuda)
    layer(x)  # and the trials
    calls.clear()
    layer(x)
    assert calls == ["attention.launch", "convolution.convolve"]
    if torch.cuda.get_device_capability(cuda) >= (8, 0):
        layer.half()(x.half())
        calls.clear()
        layer(x.half())
        assert calls == ["attention.launch", "banded.convolve"]
