"""The emulated instructions do what the documented layouts say, and a mistake in one is named."""

import shutil

import pytest
import torch

from llama_from_scratch.kernels.emulator import build
from llama_from_scratch.kernels.machinery import nvrtc
from llama_from_scratch.kernels.machinery.source import Program, Source
from llama_from_scratch.kernels.trial import conformance
from llama_from_scratch.kernels.trial.conformance import (
    HOPPER,
    INSTRUCTIONS,
    PLAIN,
    Case,
    Instruction,
    complaints,
    errors,
    swizzled,
    tried,
)

CPU = torch.device("cpu")


@pytest.mark.parametrize("instruction", INSTRUCTIONS, ids=lambda each: each.name)
def test_the_emulator_does_what_the_documentation_says(instruction):
    wrong, rounding = tried(instruction, device=CPU)
    assert not wrong, "\n".join(wrong)
    is_product = "mma" in instruction.name
    assert len(rounding) == (len(instruction.dtypes) if is_product else 0)
    for error in rounding.values():
        # The emulator rounds each sum to nearest, so no side is preferred.
        assert 0 < error["largest"] < 2e-6 and 0.4 < error["toward_zero"] < 0.6


# One mistake in the emulation of each instruction: the header, the text, and what replaces it.
MISTAKES = {
    PLAIN: (
        ("tensor_cores.h", "(f.b[lane][half] >> shift)", "(f.b[lane][1 - half] >> shift)"),
        ("tensor_cores.h", "across = 2 * (lane % 4) + i", "across = lane % 4 + 4 * i"),
        ("tensor_cores.cuh", "is_there ? 16 : 0, at", "16, at"),
    ),
    HOPPER: (
        ("hopper.h", "n_bytes = rest < 16 ? rest : 16", "n_bytes = 16"),
        ("hopper.h", "(phase_of(barrier) == (int)parity)", "(!phase_of(barrier) && !parity)"),
        ("hopper.h", "mn / 8 * x.stride + mn % 8 * 128", "mn / 8 * x.stride + (7 - mn % 8) * 128"),
        ("hopper.h", "mn % 64 * 2 + mn / 64", "(mn % 64 ^ 1) * 2 + mn / 64"),
        ("hopper.h", "a_is_mn_major, p.widen", "b_is_mn_major, p.widen"),
        ("hopper.h", "[k / 8 * 2 + half]", "[k / 8 + half * 2]"),
    ),
}


@pytest.mark.parametrize("file", [PLAIN, HOPPER])
def test_a_mistake_in_the_emulation_of_each_instruction_is_found(file, tmp_path, monkeypatch):
    text = conformance.source(file)
    folder = tmp_path / "emulator"
    shutil.copytree(build.FOLDER, folder)
    for header, old, new in MISTAKES[file]:
        if header in text.headers:
            text = text.replace(old, new)
        else:
            content = (folder / header).read_text()
            assert content.count(old) == 1, old
            (folder / header).write_text(content.replace(old, new))
    monkeypatch.setattr(build, "FOLDER", folder)
    # Another text, because a program is built once for each.
    text = Source(name=text.name, text=text.text + "// with mistakes\n", headers=text.headers)
    for each in INSTRUCTIONS:
        if each.file == file:
            one = Instruction(**{**vars(each), "dtypes": (torch.bfloat16,)})
            wrong, _ = tried(one, device=CPU, text=text)
            assert wrong, f"a mistake in {each.name} was not found"


@pytest.mark.parametrize("file", [PLAIN, HOPPER])
def test_the_kernels_compile_for_a_gpu_without_a_warning(file):
    source = conformance.source(file)
    architecture = "sm_90a" if file == HOPPER else "sm_80"
    compiled = nvrtc.compiler().compile(Program(source=source, real=torch.bfloat16), architecture)
    assert "warning" not in compiled.log.lower(), compiled.log
    assert "spill stores" not in compiled.log.replace("0 bytes spill stores", "")


def test_the_swizzle_puts_each_chunk_where_the_manual_draws_it():
    chunks = torch.arange(16 * 8).view(16, 8, 1).expand(16, 8, 8).reshape(16, 64)
    stored = swizzled(chunks).view(16, 8, 8)[..., 0] - 8 * torch.arange(16)[:, None]
    assert stored[:2].tolist() == [[0, 1, 2, 3, 4, 5, 6, 7], [1, 0, 3, 2, 5, 4, 7, 6]]
    assert stored[7].tolist() == [7, 6, 5, 4, 3, 2, 1, 0] and stored[8].equal(stored[0])


def mma_case(*, is_exact):
    cases = conformance._mma(torch.Generator().manual_seed(0), torch.bfloat16)
    return cases[0 if is_exact else 1]


def test_a_single_other_bit_of_an_exact_case_is_named_with_its_place():
    case = mma_case(is_exact=True)
    result = case.expected[0].clone()
    result[2, 5, 1] += 1
    (line,) = complaints(case, [result])
    expected = case.expected[0][2, 5, 1]
    assert line.startswith("try_mma, output 0: 1 of 2048 differ; at (2, 5, 1) it is 0x")
    assert line.endswith(f"must be {hex(expected.view(torch.int32).item())}")


def test_sums_that_are_cut_off_pass_and_show_it_and_sums_of_bf16_do_not():
    case = mma_case(is_exact=False)
    exact = case.expected[0]
    # 23 bits after the leading one of the largest number, the rest cut off, as a tensor core does.
    unit = torch.exp2(case.largest.log2().floor() - 22)
    cut = ((exact / unit).trunc() * unit).float()
    assert complaints(case, [cut]) == []
    found = errors(case, [cut])
    assert found["toward_zero"] > 0.95 and found["largest"] < 2.0**-21
    assert found["not_nearest"] > 0.5 and errors(case, [exact.float()])["not_nearest"] == 0
    (line,) = complaints(case, [exact.bfloat16().float()])
    assert line.startswith("try_mma, output 0:") and line.endswith("or near it")
    (line,) = complaints(case, [torch.full_like(cut, float("nan"))])
    assert "2048 of 2048 differ" in line


def test_a_step_says_what_is_wrong_where_and_how_sums_are_rounded(monkeypatch):
    said = []
    steps = {step.name: step for step in conformance.steps(CPU)}
    assert len(steps) == 2 * len(INSTRUCTIONS)
    found = steps["mma.m16n8k16, emulated"].run(said.append)
    assert not found.wrong and set(found.data["rounding"]) == {"bf16", "fp16"}
    assert said[0] == "mma.m16n8k16 on the emulator: as documented"
    assert any(line.startswith("  fp16: sums are off by at most") for line in said)

    plain = conformance.outputs_of

    def off_by_one(case, program, device):
        return [x + 1 for x in plain(case, program, device)]

    monkeypatch.setattr(conformance, "outputs_of", off_by_one)
    wrong = steps["mbarrier phases, emulated"].run(said.append).wrong
    assert wrong[0].startswith(
        "mbarrier phases on the emulator: try_mbarrier, output 0: 224 of 224 differ")
    monkeypatch.setattr(conformance, "no_emulator", lambda: "there is no compiler")
    assert steps["mbarrier phases, emulated"].run(said.append).why_not == "there is no compiler"


@pytest.mark.parametrize(("capability", "plain", "hopper"), [
    ((7, 5), "it needs sm_80 or newer; this GPU has compute capability 7.5", "it needs sm_90a; "),
    ((8, 9), "", "it needs sm_90a; this GPU has compute capability 8.9"),
    ((9, 0), "", ""),
    ((10, 0), "", "it needs sm_90a; this GPU has compute capability 10.0"),
])
def test_what_a_gpu_does_not_have_is_not_run(capability, plain, hopper, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    found = {each.file: conformance.why_not(each, torch.device("cuda")) for each in INSTRUCTIONS}
    assert found[PLAIN] == plain and found[HOPPER].startswith(hopper)
    assert bool(found[HOPPER]) == bool(hopper)


def test_a_case_of_numbers_that_round_says_so():
    assert mma_case(is_exact=False).rounds and not mma_case(is_exact=True).rounds
    assert isinstance(mma_case(is_exact=True), Case)
