"""Which programs kept their budget on every architecture, when all of them were compiled last.

A compiler gives the same machine code for the same text, so a program that is on record as it is
now needs no compiler; any other is compiled for everything. `python tests/swept_kernels.py`
compiles everything and writes `swept_kernels.json`, which takes minutes.
"""

import inspect
import json
import sys
from pathlib import Path

import torch

from llama_from_scratch.files import digest
from llama_from_scratch.kernels.machinery import nvrtc, resources
from llama_from_scratch.kernels.machinery.source import REAL_NAMES, Program

RECORD = Path(__file__).with_name("swept_kernels.json")


def many(program: Program) -> list[str]:
    """In bf16 each architecture that a program compiles for, in other dtypes sm_90 alone."""
    found = resources.architectures_of(program.source)
    return [each for each in found if program.real == torch.bfloat16 or each == "sm_90"]


def everything() -> list[Program]:
    return [program for real in REAL_NAMES for program in resources.programs([real])
            if many(program)]


def name_of(program: Program) -> str:
    return f"{program.source.name} {program.real_name}"


def state_of(program: Program, compiler: nvrtc.Compiler) -> str:
    """A digest of all that the complaints about a program depend on.

    Its text, the compiler and its options, the budget, and the code that compares them.
    """
    budget = resources.read_budget()
    lines = {entry: (budget.get(f"{entry} {program.real_name}"),
                     [(architecture, resources.MAY_SPILL.get((entry, architecture)))
                      for architecture in many(program)]) for entry in program.source.entries}
    flags = [nvrtc.flags_of(program, architecture) for architecture in many(program)]
    return digest(program.key, repr(lines), repr(flags), repr(compiler.version),
                  inspect.getsource(resources))[:16]


def sweep(programs: list[Program], compiler: nvrtc.Compiler) -> list[str]:
    """Compiles these programs for everything, and returns the complaints."""
    return resources.all_complaints([(program, architecture, compiler) for program in programs
                                     for architecture in many(program)])


def unswept(compiler: nvrtc.Compiler, record: dict[str, str]) -> list[Program]:
    """The programs that are not on record as they are now."""
    return [program for program in everything()
            if record.get(name_of(program)) != state_of(program, compiler)]


def main() -> int:
    compiler = nvrtc.compiler()
    found = sweep(everything(), compiler)
    print("\n".join(found) or "every kernel keeps its budget")
    if not found:
        record = {name_of(program): state_of(program, compiler) for program in everything()}
        RECORD.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
