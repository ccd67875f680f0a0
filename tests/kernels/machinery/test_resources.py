"""Every kernel compiled by both toolchains for every architecture, and held against its budget. No
GPU is needed."""

import json
from collections import Counter

import pytest
import swept_kernels
import torch

from llama_from_scratch.kernels.machinery import nvrtc, resources
from llama_from_scratch.kernels.machinery.resources import (
    ARCHITECTURES,
    BUDGETED,
    EntryResources,
    Resources,
    complaints,
    read_budget,
)
from llama_from_scratch.kernels.machinery.source import FOLDER, REAL_NAMES, Program, Source


def cover():
    """Each source twice, and no more, because the compilers take minutes for everything.

    Once in bf16 for the GPU that the kernels are tuned for, whose machine code is read, and once
    for another GPU in another dtype, which take turns. The two compilers take turns, too.
    """
    jobs, used = [], Counter()
    for i, source in enumerate(map(Source.read, sorted(path.stem for path in FOLDER.glob("*.cu")))):
        _, is_only = source.architectures
        others = [each for each in resources.architectures_of(source) if each != "sm_90"]
        dtypes = [real for real in source.reals if real != torch.bfloat16]
        tuned = (source.architectures[0] if is_only else "sm_90", torch.bfloat16)
        turns = (min(others, key=used.__getitem__), dtypes[i % len(dtypes)])
        used[turns[0]] += 1
        for (architecture, real), name in zip((tuned, turns), ("nvrtc", "nvcc")[::1 - i % 2 * 2],
                                              strict=True):
            jobs.append((Program(source=source, real=real), architecture, name))
    return jobs


TEXT = """#include "common.cuh"
extern "C" __global__ void copy_vectors(const real* x, real* y) {
    store(y + threadIdx.x * VECTOR, load(x + threadIdx.x * VECTOR));
}
extern "C" __global__ void copy_numbers(const real* x, real* y) { y[threadIdx.x] = x[threadIdx.x]; }
extern "C" __global__ void copy_shared(const real* x, real* y) {
    __shared__ float turned[256];
    turned[threadIdx.x] = widen(x[threadIdx.x]);
    __syncthreads();
    y[threadIdx.x] = narrow(turned[255 - threadIdx.x]);
}
extern "C" __global__ void __launch_bounds__(1024) spill(const real* x, real* y, int n) {
    float kept[80];
    for (int i = 0; i < 80; i++) kept[i] = widen(x[i * n + threadIdx.x]);
    for (int turn = 0; turn < n; turn++)
        for (int i = 0; i < 80; i++) kept[i] = kept[i] * kept[(i + 7) % 80] + kept[(i + 31) % 80];
    for (int i = 0; i < 80; i++) y[i * n + threadIdx.x] = narrow(kept[i]);
}
"""


def example(text=TEXT, real=torch.bfloat16):
    headers = {"common.cuh": (FOLDER / "common.cuh").read_text()}
    return Program(source=Source(name="example", text=text, headers=headers), real=real)


def found(compiler):
    """The compiler, or a skip that says what is missing and how to get it."""
    try:
        return compiler()
    except RuntimeError as error:
        pytest.skip(str(error))


@pytest.fixture(params=[nvrtc.compiler, resources.nvcc], ids=["nvrtc", "nvcc"])
def compiler(request):
    return found(request.param)


@pytest.fixture
def disassembler():
    return resources.tool("nvdisasm") or pytest.skip(
        "needs nvdisasm: pip install nvidia-cuda-nvdisasm (5 MB, Linux)")


# ---- the kernels ---------------------------------------------------------------------------------


def of_the_budget(name):
    """The compiler of this name, if the budget was measured with its version."""
    compiler = found({"nvrtc": nvrtc.compiler, "nvcc": resources.nvcc}[name])
    if compiler.version != tuple(map(int, resources.BUDGET_CUDA.split("."))):
        pytest.skip(f"the budget is of CUDA {resources.BUDGET_CUDA}, whose compilers the test "
                    f"extra installs; here is {compiler.path} of {compiler.version}")
    return compiler


@pytest.mark.parametrize("name", ["nvrtc", "nvcc"])
def test_every_kernel_compiles_and_keeps_its_budget(name):
    compiler = of_the_budget(name)
    jobs = [(program, architecture, compiler) for program, architecture, by in cover()
            if by == name]
    assert resources.all_complaints(jobs) == []


@pytest.mark.slow
def test_every_kernel_keeps_its_budget_on_every_architecture_and_in_every_dtype():
    """What is on record as it is now was compiled for everything when it was recorded."""
    compiler = of_the_budget("nvrtc")
    record = json.loads(swept_kernels.RECORD.read_text())
    assert swept_kernels.sweep(swept_kernels.unswept(compiler, record), compiler) == []
    names = {swept_kernels.name_of(program) for program in swept_kernels.everything()}
    assert record.keys() <= names, "python tests/swept_kernels.py forgets kernels that are gone"


@pytest.mark.parametrize("change", ["text", "header", "budget", "spill", "options", "compiler"])
def test_a_kernel_is_swept_again_after_a_change_of_anything_that_its_budget_depends_on(
    change, monkeypatch
):
    compiler = found(nvrtc.compiler)
    adamw, rope = Source.read("adamw"), Source.read("rope")

    def programs_of(*sources):
        monkeypatch.setattr(resources, "programs", lambda dtypes: [
            Program(source=source, real=real) for source in sources for real in dtypes])

    programs_of(adamw, rope)
    before = {swept_kernels.name_of(program): swept_kernels.state_of(program, compiler)
              for program in swept_kernels.everything()}
    assert swept_kernels.unswept(compiler, before) == []
    headers = {**adamw.headers, "common.cuh": adamw.headers["common.cuh"] + "//"}
    if change == "text":
        programs_of(Source(name="adamw", text=adamw.text + "//", headers=adamw.headers), rope)
    elif change == "header":
        programs_of(Source(name="adamw", text=adamw.text, headers=headers), rope)
    elif change == "budget":
        budget = read_budget()
        budget["adamw bf16"]["registers"]["sm_75"] -= 1
        monkeypatch.setattr(resources, "read_budget", lambda: budget)
    elif change == "spill":
        monkeypatch.setitem(resources.MAY_SPILL, ("adamw", "sm_120"), 8)
    elif change == "options":
        monkeypatch.setattr(nvrtc, "FLAGS", (*nvrtc.FLAGS, "--use_fast_math"))
    else:
        monkeypatch.setattr(compiler, "version", (13, 9))
    again = {swept_kernels.name_of(program)
             for program in swept_kernels.unswept(compiler, before)}
    changed = {f"adamw {name}" for name in REAL_NAMES.values()}
    assert again == {"text": changed, "header": changed, "budget": {"adamw bf16"},
                     "spill": {"adamw bf16"}}.get(change, before.keys())


def test_the_cover_has_every_source_architecture_dtype_and_compiler():
    jobs = cover()
    names = {path.stem for path in FOLDER.glob("*.cu")}
    assert {program.source.name for program, _, _ in jobs} == names
    assert {architecture for _, architecture, _ in jobs} == {*ARCHITECTURES, "sm_90a"}
    assert {program.real for program, _, _ in jobs} == {*REAL_NAMES}
    assert {(program.source.name, by) for program, _, by in jobs} == {
        (name, by) for name in names for by in ("nvrtc", "nvcc")}
    assert {program.source.name for program, architecture, _ in jobs
            if architecture in resources.SASS_ARCHITECTURES} == names
    assert {(architecture, by) for _, architecture, by in jobs} >= {
        (architecture, by) for architecture in ("sm_90", "sm_90a") for by in ("nvrtc", "nvcc")}


def test_the_budget_names_just_the_kernels_there_are_on_the_architectures_they_support():
    budget = read_budget()
    assert {line: tuple(taken["registers"]) for line, taken in budget.items()} == {
        f"{entry} {REAL_NAMES[real]}": resources.architectures_of(program.source)
        for real in BUDGETED for program in resources.programs([real])
        for entry in program.source.entries}


# ---- the measuring -------------------------------------------------------------------------------


def test_both_toolchains_see_registers_shared_memory_widths_and_spills(
    compiler, disassembler, tmp_path
):
    taken = resources.measure(example(), "sm_90", compiler=compiler, disassembler=disassembler,
                              folder=tmp_path)
    assert [*taken.entries] == ["copy_vectors", "copy_numbers", "copy_shared", "spill"]
    vectors, numbers, shared, spill = taken.entries.values()
    assert (vectors.load_bits, vectors.store_bits) == (128, 128)
    assert (numbers.load_bits, numbers.store_bits) == (16, 16)
    assert [each.shared_bytes for each in (vectors, numbers, shared, spill)] == [0, 0, 1024, 0]
    assert spill.registers == 64 and min(spill.spill_bytes, spill.stack_bytes, spill.n_local) > 0
    for each in (vectors, numbers, shared):
        assert 0 < each.registers < 32 and each.spill_bytes == each.stack_bytes == each.n_local == 0
    assert taken.warnings == ()
    assert {"LDG", "STG", "EXIT"} <= {*vectors.operations} and "STL" in spill.operations
    assert "LDS" in shared.operations and "LDS" not in numbers.operations


def test_a_measurement_is_made_once_per_text_and_compiler(compiler, tmp_path, monkeypatch):
    first = resources.measure(example(), "sm_90", compiler=compiler, folder=tmp_path)
    assert first.entries["copy_vectors"].load_bits is None, "not disassembled"
    monkeypatch.setattr(compiler, "compile", None)
    assert resources.measure(example(), "sm_90", compiler=compiler, folder=tmp_path) == first
    with pytest.raises(TypeError):
        resources.measure(example(TEXT + "//"), "sm_90", compiler=compiler, folder=tmp_path)


def test_both_toolchains_report_warnings(compiler, tmp_path):
    taken = resources.measure(example(TEXT.replace(
        "float turned", "int unused; float turned").replace(
        "__shared__ int unused; float", "int unused; __shared__ float")), "sm_90",
                              compiler=compiler, folder=tmp_path)
    assert any("unused" in line for line in taken.warnings)


def test_nvcc_refuses_a_broken_source_with_the_line(tmp_path):
    with pytest.raises(nvrtc.CompileError, match=r'example.cu\(5\): error: identifier "z" is '
                                                 r'undefined'):
        found(resources.nvcc).compile(example(TEXT.replace(
            "{ y[threadIdx.x] = x", "{ z[threadIdx.x] = x")), "sm_90")


def test_a_log_counts_what_called_functions_spill():
    taken = resources.read_log("""ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'power' for 'sm_90'
ptxas info    : Function properties for power
ptxas         .     16 bytes stack frame, 4 bytes spill stores, 8 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 96 bytes smem, 400 bytes cmem[0]
ptxas info    : Function properties for __internal_pow
    24 bytes stack frame, 0 bytes spill stores, 2 bytes spill loads
ptxas info    : Compiling entry function 'plain' for 'sm_90'
ptxas info    : Function properties for plain
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 8 registers, used 0 barriers
""")
    assert taken == {"power": EntryResources(registers=40, spill_bytes=14, stack_bytes=24,
                                             shared_bytes=96),
                      "plain": EntryResources(registers=8, spill_bytes=0, stack_bytes=0,
                                              shared_bytes=0)}


def test_a_disassembly_tells_the_widest_accesses_of_each_entry_point():
    facts = resources.read_sass("""
//--------------------- .text.first --------------------------
        /*0270*/      @!P0 LDG.E.128.CONSTANT R4, desc[UR6][R6.64] ;
        /*0280*/           LDG.E.U16 R7, desc[UR6][R6.64] ;
        /*0290*/           ST.E.64 desc[UR6][R6.64], R4 ;
        /*02a0*/           LDS.128 R4, [R6] ;
//--------------------- .text.second --------------------------
        /*0270*/           STL [R1], R4 ;
        /*0280*/           LDL.LU R4, [R1] ;
        /*0290*/           STG.E.U8 desc[UR6][R6.64], R4 ;
//--------------------- .nv.shared.second --------------------------
""")
    assert facts == {"first": {"load_bits": 128, "store_bits": 64, "n_local": 0,
                               "operations": ("LDG", "LDS", "ST")},
                     "second": {"load_bits": 0, "store_bits": 8, "n_local": 2,
                                "operations": ("LDL", "STG", "STL")}}


def test_a_disassembly_tells_the_operations_without_their_predicates():
    operations = resources.read_sass("""
//--------------------- .text.tiles --------------------------
        /*1f40*/                   HGMMA.64x64x16.F32.BF16 R184, gdesc[UR20], RZ, !UPT ;
        /*1f50*/         @!UP0     UTMALDG.4D [UR8], [UR6], desc[URZ] ;
        /*1f60*/              @P1  LDGSTS.E.BYPASS.128 [R4], [R2.64] ;
        /*1f70*/             @!PT  LDSM.16.M88.4 R4, [R8] ;
""")["tiles"]["operations"]
    assert operations == ("HGMMA", "LDGSTS", "LDSM", "UTMALDG")


def test_serialized_products_and_ignored_register_counts_are_warnings():
    lost = ("ptxas info    : (C7510) Potential Performance Loss: wgmma.mma_async instructions are "
            "serialized due to insufficient register resources in function 'f'")
    ignored = "ptxas info    : (C7508) Potential Performance Loss: 'setmaxnreg' ignored"
    injected = "ptxas info    : (C7517) warpgroup.wait is injected in around line 7"
    log = f"{lost}\nptxas info    : Used 8 registers\n{ignored}\n{injected}\nx.cu(3): warning #1"
    assert resources.read_warnings(log) == [lost, ignored, injected, "x.cu(3): warning #1"]


def test_sums_that_are_touched_before_their_wait_are_reported_by_both_toolchains(
    compiler, tmp_path
):
    narrow = Source.read("attention_hopper")
    entries = narrow.text.split('extern "C" ')   # the compiler skips what is never called
    text = entries[0] + "".join(
        'extern "C" ' * (" attention_hopper_forward_64(" in each) + each for each in entries[1:])
    source = Source(name=narrow.name, text=text, headers=narrow.headers).replace(
        "        pass_turn();\n        wgmma_wait<0>();\n        release(&k_empty[0]);",
        "        s[0] += 1;\n        pass_turn();\n        wgmma_wait<0>();\n"
        "        release(&k_empty[0]);")
    taken = resources.measure(Program(source=source, real=torch.bfloat16), "sm_90a",
                              compiler=compiler, folder=tmp_path)
    assert any("C75" in line for line in taken.warnings)


# ---- the comparison with the budget --------------------------------------------------------------

ONE = example('extern "C" __global__ void one(real* y) {}')
BUDGET = {"one bf16": {"registers": {"sm_90": 32}, "shared_bytes": 64, "load_bits": 128,
                       "store_bits": 128}}


def complaints_about(*, program=ONE, architecture="sm_90", warnings=(), **changes):
    entry = EntryResources(**dict(registers=32, spill_bytes=0, stack_bytes=0, shared_bytes=64,
                                  load_bits=128, store_bits=128,
                             n_local=0) | changes)
    return [*complaints(program, architecture, Resources(entries={"one": entry}, warnings=warnings),
                        BUDGET)]


def test_a_kernel_within_its_budget_is_not_complained_of():
    assert complaints_about() == complaints_about(registers=20, shared_bytes=0) == []
    assert complaints_about(load_bits=None, store_bits=None, n_local=None) == [], "not disassembled"


@pytest.mark.parametrize("change, message", [
    (dict(registers=33), "one has registers 33, but may have 32"),
    (dict(shared_bytes=65), "shared_bytes 65, but may have 64"),
    (dict(spill_bytes=4), "spill_bytes 4, but may have 0"),
    (dict(stack_bytes=8), "stack_bytes 8, but may have 0"),
    (dict(n_local=1), "n_local 1, but may have 0"), (dict(load_bits=64), "load_bits 64, but must "
                                                                         "have 128"),
    (dict(store_bits=16), "store_bits 16, but must have 128"),
    (dict(warnings=("x.cu(3): warning",)), "x.cu(3): warning"),
    (dict(architecture="sm_80"), "one has no budget; python -m "
                                 "llama_from_scratch.kernels.machinery.resources --update"),
    (dict(program=example(TEXT)), "differ in copy_numbers, copy_shared, copy_vectors, one, spill")])
def test_whatever_exceeds_the_budget_is_complained_of_by_name(change, message):
    assert any(message in line and "example.cu, bf16, sm_" in line
               for line in complaints_about(**change))


def test_instructions_that_a_source_names_must_be_in_every_entry_point():
    source = Source(name="example", headers={}, text="// One.\n// instructions: HMMA LDSM\n"
                                                     + ONE.source.text)
    named = Program(source=source, real=torch.bfloat16)
    assert source.instructions == ("HMMA", "LDSM") and ONE.source.instructions == ()
    assert complaints_about(program=named, operations=("EXIT", "HMMA", "LDSM")) == []
    assert complaints_about(program=named, operations=("EXIT", "HMMA")) == [
        "example.cu, bf16, sm_90: the machine code of one must hold LDSM"]
    assert complaints_about(program=named) == [], "not disassembled"


@pytest.mark.parametrize("name, instructions", [
    ("attention_mma", ("HMMA", "LDSM", "LDGSTS")), ("attention_hopper", ("HGMMA", "UTMALDG"))])
def test_kernels_for_tensor_cores_name_the_instructions_that_they_are_for(name, instructions):
    assert Source.read(name).instructions == instructions


def test_a_kernel_that_may_spill_may_do_so_only_where_and_as_much_as_is_said(monkeypatch):
    monkeypatch.setattr(resources, "MAY_SPILL", {("one", "sm_90"): 8, ("other", "sm_90"): 100})
    assert complaints_about(spill_bytes=8, stack_bytes=8) == []
    assert len(complaints_about(spill_bytes=9)) == 1
    monkeypatch.setattr(resources, "MAY_SPILL", {("one", "sm_80"): 8})
    assert len(complaints_about(spill_bytes=8)) == 1


def test_no_kernel_may_spill_on_the_gpu_that_they_are_tuned_for():
    assert not any(architecture == "sm_90" for _, architecture in resources.MAY_SPILL)


def test_double_programs_have_no_budget_but_must_compile_without_warnings():
    double = example(ONE.source.text, torch.float64)
    assert complaints_about(program=double, registers=255, spill_bytes=44) == []
    assert len(complaints_about(program=double, warnings=("warning",))) == 1


# ---- the command ---------------------------------------------------------------------------------


def test_check_prints_what_exceeds_the_budget_and_fails(monkeypatch, capsys):
    compiler = found(nvrtc.compiler)   # not called
    monkeypatch.setattr(resources, "every_job", lambda: [(ONE, "sm_90", compiler)])
    entry = EntryResources(registers=33, spill_bytes=0, stack_bytes=0, shared_bytes=64)
    monkeypatch.setattr(resources, "measure_all", lambda jobs: [
        Resources(entries={"one": entry}, warnings=()) for _ in jobs])
    monkeypatch.setattr(resources, "read_budget", lambda: BUDGET)
    assert resources.main(["--check"]) == 1
    assert "one has registers 33, but may have 32" in capsys.readouterr().out
    monkeypatch.setattr(resources, "every_job", list)
    assert resources.main(["--check"]) == 0


def test_the_full_check_has_every_pair_and_both_compilers():
    both = found(nvrtc.compiler), found(resources.nvcc)
    assert resources.every_job() == [
        (program, architecture, compiler) for program in resources.programs()
        for architecture in resources.architectures_of(program.source) for compiler in both]
    reals = {program.real for program, _, _ in resources.every_job()}
    assert reals == {*REAL_NAMES} and len(resources.every_job(BUDGETED)) < len(
        resources.every_job())


def test_the_table_has_a_line_for_every_entry_point(monkeypatch):
    found(nvrtc.compiler)
    monkeypatch.setattr(resources, "programs", lambda: [example(real=real) for real in REAL_NAMES])
    lines = resources.table().splitlines()
    assert lines[0].startswith("sm_90, NVRTC") and "registers" in lines[0]
    assert [line.split()[0] for line in lines[2:]] == [
        "copy_vectors", "copy_numbers", "copy_shared", "spill"]
    assert all(int(n) > 0 for line in lines[2:] for n in line.split()[1:5])


def test_the_table_without_a_compiler_says_what_is_missing(monkeypatch):
    def absent():
        raise RuntimeError("no NVRTC was found; pip install it")

    monkeypatch.setattr(nvrtc, "compiler", absent)
    assert resources.table() == ("registers, spills and shared memory are not known here: "
                                 "no NVRTC was found; pip install it")
    assert resources.compiler_name() == "no NVRTC"


def test_a_missing_nvcc_or_nvdisasm_is_reported_with_the_cure(monkeypatch, tmp_path):
    monkeypatch.setattr(resources, "tool", lambda name: None)
    with pytest.raises(RuntimeError, match=r"no nvcc was found. .*pip install "
                                           r"'nvidia-cuda-nvcc==13.0.\*'.*cuda-runtime"):
        resources.nvcc.__wrapped__()
    with pytest.raises(RuntimeError,
                       match="no nvdisasm was found.*pip install nvidia-cuda-nvdisasm"):
        resources.write_budget(tmp_path / "budget.json")


def test_the_written_budget_is_what_the_comparison_reads(monkeypatch, tmp_path, disassembler):
    nvrtc_here, nvcc_here = found(nvrtc.compiler), found(resources.nvcc)
    text = TEXT[:TEXT.index('extern "C" __global__ void copy_shared')]
    monkeypatch.setattr(resources, "ARCHITECTURES", ("sm_90",))
    monkeypatch.setattr(resources, "programs",
                        lambda dtypes: [example(text, real) for real in dtypes])
    path = tmp_path / "budget.json"
    resources.write_budget(path)
    assert json.loads(path.read_text())["copy_vectors fp16"]["load_bits"] == 128
    for compiler in (nvrtc_here, nvcc_here):
        jobs = [(example(text, real), "sm_90", compiler) for real in BUDGETED]
        measured = resources.measure_all(jobs)
        for (program, architecture, _), taken in zip(jobs, measured, strict=True):
            assert [*complaints(program, architecture, taken, read_budget(path))] == []
