"""The Triton kernels without a GPU: their machine code, compiled ahead of time for GPUs that are not here.

A kernel that spills registers or misses the tensor cores is right under the interpreter and useless on a GPU.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest

triton = pytest.importorskip("triton", reason="triton is not installed: pip install 'concise-rl[test]' on Linux")

from concise_rl.kernels import triton_fold, triton_forward  # noqa: E402
from concise_rl.kernels.triton_common import INTERPRETED  # noqa: E402

CUOBJDUMP = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
pytestmark = [
    pytest.mark.skipif(INTERPRETED, reason="TRITON_INTERPRET is set: there is nothing to compile"),
    pytest.mark.skipif(not CUOBJDUMP.exists(), reason="this build of triton brings no cuobjdump"),
]

SHARED_MEMORY_BYTES = {80: 163 << 10, 90: 227 << 10, 100: 227 << 10}
"""Most that one block may have: CUDA C++ Programming Guide, technical specifications by compute capability."""

TENSOR_CORES = {80: r"\bHMMA", 90: r"\bHGMMA", 100: r"\bUTC\w*MMA"}

TYPES = {
    **dict.fromkeys(("tile_nv", "parts_4SN", "pre_N", "post_N"), "*fp32"),
    **dict.fromkeys(("max_N", "sum_exp_N", "sum_shifted_N", "target_logit_N"), "*fp32"),
    **dict.fromkeys(("scale_N", "entropy_scale_N", "logprob_grad_N"), "*fp32"),
    **dict.fromkeys(("hidden_NH", "weight_VH", "bias_V", "dz_nv"), "*bf16"),
    "target_N": "*i64",
}
PLAIN: dict[str, Any] = dict.fromkeys(("bias_V", "pre_N", "post_N"))
"""No bias, no scale, no soft-cap: compiled out."""


@pytest.fixture(autouse=True)
def _fresh_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


def _compiled(kernel: Any, arch: int, block: dict[str, int], multiples: tuple[str, ...], **known: Any) -> Any:
    """The kernel for sm_`arch`.

    Args:
        multiples: integer arguments that 16 divides, as Triton finds out for itself at a launch.
        known: arguments compiled in, or their types where `TYPES` and i32 do not fit.
    """
    options = {key: value for key, value in block.items() if key.startswith("num_")}
    known |= {key: value for key, value in block.items() if key not in options}
    types = TYPES | {name: value for name, value in known.items() if isinstance(value, str)}
    constants = {name: value for name, value in known.items() if not isinstance(value, str)}
    names = kernel.arg_names
    signature = {name: "constexpr" if name in constants else types.get(name, "i32") for name in names}
    aligned = [name for name in names if signature[name].startswith("*") or name in multiples]
    source = triton.compiler.ASTSource(
        fn=kernel,
        signature=signature,
        constexprs={name: value for name, value in constants.items() if name in names},
        attrs={(names.index(name),): [["tt.divisibility", 16]] for name in aligned if name not in constants},
    )
    return triton.compile(source, target=triton.backends.compiler.GPUTarget("cuda", arch, 32), options=options)


def _assert_fits(compiled: Any, arch: int) -> str:
    """Nothing spilled, shared memory within bounds; its machine code."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as cubin:
        cubin.write(compiled.asm["cubin"])
        cubin.flush()
        sass = subprocess.run([CUOBJDUMP, "-sass", cubin.name], capture_output=True, text=True, check=True).stdout
    spills = re.findall(r"\b(?:LDL|STL)\b.*", sass)
    assert "EXIT" in sass
    assert not spills, f"triton {triton.__version__} spills {len(spills)} times, first {spills[0]}"
    assert compiled.metadata.shared <= SHARED_MEMORY_BYTES[arch]
    return sass


@pytest.mark.parametrize(
    ("arch", "options"),
    [(80, {}), (90, {}), (100, {}), (90, PLAIN)],
    ids=["80-everything", "90-everything", "100-everything", "90-plain"],
)
def test_the_fused_forward_runs_on_tensor_cores(arch: int, options: dict[str, Any]) -> None:
    block = triton_forward.DESCRIPTORS.get(arch // 10)
    known = {"ENTROPY": True, "UPCAST": False, "GROUP": triton_forward.ROW_GROUP, **options}
    if block is None:
        block, copies = triton_forward.POINTERS, "LDGSTS"
        multiples = ("hidden_stride", "weight_stride", "depth")
    else:
        copies, multiples = "UTMALDG", ("depth",)
        known |= {"hidden_NH": f"tensordesc<bf16[{block.ROWS}, {block.DEPTH}]>", "hidden_stride": None}
        known |= {"weight_VH": f"tensordesc<bf16[{block.COLUMNS}, {block.DEPTH}]>", "weight_stride": None}
    compiled = _compiled(triton_forward.forward_kernel, arch, vars(block), multiples, **known)
    sass = _assert_fits(compiled, arch)
    assert re.search(TENSOR_CORES[arch], sass)
    assert copies in sass  # operands arrive while the tensor cores work


def test_a_single_row_and_a_single_stretch_compile() -> None:
    """Triton compiles integers in where they are 1; the interpreter does not."""
    ones = dict.fromkeys(("rows", "columns", "stretches", "blocks_per_stretch"), 1)
    known = {"ENTROPY": True, "UPCAST": False, "GROUP": triton_forward.ROW_GROUP, **ones}
    multiples = ("hidden_stride", "weight_stride", "depth")
    _assert_fits(_compiled(triton_forward.forward_kernel, 80, vars(triton_forward.POINTERS), multiples, **known), 80)


@pytest.mark.parametrize("kernel", ["statistics_kernel", "gradient_kernel"])
@pytest.mark.parametrize("arch", [80, 90, 100])
def test_the_folds_read_tiles_in_wide_words(arch: int, kernel: str) -> None:
    known = {"ENTROPY": True} if kernel == "statistics_kernel" else {}
    compiled = _compiled(getattr(triton_fold, kernel), arch, triton_fold.BLOCK, ("columns",), **known)
    sass = _assert_fits(compiled, arch)
    assert re.search(r"\bLDG\S*\.128\b", sass)
