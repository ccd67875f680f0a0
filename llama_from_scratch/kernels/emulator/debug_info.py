"""Reads from a compiled file where its variables are, and the source line of each instruction.

Compilers write both into the file, in its symbol table, DWARF's line table, and a record of every
inlined call. pyelftools reads them. It is pure Python, so a machine needs neither binutils nor a
debugger.

Notebook 30. Source: DWARF Debugging Information Format 4, sections 3.3.8 (inlined calls) and 6.2
(line table).
"""

import ctypes
import functools
import sys
from bisect import bisect_right
from pathlib import Path

from llama_from_scratch.config import record

_ALLOCATED, _WRITABLE, _CODE = 2, 1, 4  # flags of an ELF section


@record
class Variable:
    """A variable with an address of its own. `name`: its name in C++, with the scopes."""

    name: str
    begin: int
    n_bytes: int
    is_read_only: bool
    is_shared: bool  # it is where cuda_on_cpu.h puts a block's shared memory


class DebugInfo:
    """The variables and source lines of one file. Addresses count from the file's beginning."""

    def __init__(self, path: Path) -> None:
        from elftools.elf.elffile import ELFFile

        with open(path, "rb") as file:
            elf = ELFFile(file)
            self.variables = tuple(_variables(elf))
            # From this address on: file, line. Between these addresses: file, line of the call.
            self._rows: list[tuple[int, str, int]] = []
            self._inlined: list[tuple[int, int, str, int]] = []
            dwarf = elf.get_dwarf_info()
            for unit in dwarf.iter_CUs():
                if program := dwarf.line_program_for_CU(unit):
                    names = _file_names(program)
                    self._rows += _rows(program, names)
                    self._inlined += _inlined(dwarf, unit, names)
        # A stable sort, because the last of several rows for one address counts.
        self._rows.sort(key=lambda row: row[:1])
        self._starts = [address for address, *_ in self._rows]

    def lines(self, address: int) -> list[tuple[str, int]]:
        """Returns (file, line) of an instruction, then of each inlined call around it, outward.

        Line 0: the compiler records no line. An empty list: code without a source.
        """
        at = bisect_right(self._starts, address) - 1
        if at < 0 or not self._rows[at][1]:
            return []
        calls = [(file, line) for low, high, file, line in self._inlined if low <= address < high]
        # An inner call is recorded after the one around it.
        return [self._rows[at][1:], *reversed(calls)]


@functools.cache  # a file's name holds the digest of its bytes
def read_debug_info(path: Path) -> DebugInfo:
    """Returns the debug info of a file. Raises ValueError, with the cure, without pyelftools."""
    try:
        return DebugInfo(path)
    except ImportError as problem:
        raise ValueError("tracing needs the package pyelftools, which is not installed. Install "
                         f"it: {sys.executable} -m pip install pyelftools. Without it, kernels "
                         "still run and are checked: machine.load(program, "
                         "kind=\"checked\")") from problem


def _variables(elf):
    sections = list(elf.iter_sections())
    for symbol in elf.get_section_by_name(".symtab").iter_symbols():
        number = symbol["st_shndx"]
        is_object = symbol["st_info"]["type"] == "STT_OBJECT" and symbol["st_size"]
        if not is_object or isinstance(number, str):
            continue
        section = sections[number]
        flags = section["sh_flags"]
        if flags & _ALLOCATED and not flags & _CODE:
            yield Variable(
                name=_demangled(symbol.name), begin=symbol["st_value"], n_bytes=symbol["st_size"],
                is_read_only=not flags & _WRITABLE, is_shared=section.name == "emu_shared")


@functools.cache
def _demangler():
    function = ctypes.CDLL("libstdc++.so.6").__cxa_demangle  # PyTorch has loaded it already
    function.argtypes = [ctypes.c_char_p] + 3 * [ctypes.c_void_p]
    function.restype = ctypes.c_char_p
    return function


def _demangled(symbol: str) -> str:
    # clang numbers the parts of a struct that it has split: blockIdx.0.
    stem = symbol.partition(".")[0]
    name = _demangler()(stem.encode(), None, None, None) if stem.startswith("_Z") else None
    return name.decode() if name else stem


def _file_names(program) -> list[str]:
    names = [entry.name.decode() for entry in program["file_entry"]]
    return names if program["version"] >= 5 else ["", *names]  # earlier versions count from 1


def _rows(program, names: list[str]):
    sequences, rows = [], []
    for entry in program.get_entries():
        if (state := entry.state) is None:
            continue
        rows.append((state.address, "" if state.end_sequence else Path(names[state.file]).name,
                     state.line))
        if state.end_sequence:
            sequences.append(rows)
            rows = []
    # In order of their addresses, so that a function that begins at another's end replaces the end.
    return [row for rows in sorted(sequences, key=lambda rows: rows[0][0]) for row in rows]


def _inlined(dwarf, unit, names: list[str]):
    for die in unit.iter_DIEs():
        if die.tag != "DW_TAG_inlined_subroutine" or "DW_AT_call_line" not in die.attributes:
            continue
        value = {name: attribute.value for name, attribute in die.attributes.items()}
        call = Path(names[value["DW_AT_call_file"]]).name, value["DW_AT_call_line"]
        for low, high in _ranges(dwarf, unit, die):
            yield low, high, *call


def _ranges(dwarf, unit, die):
    from elftools.dwarf.ranges import BaseAddressEntry

    if "DW_AT_ranges" not in die.attributes:
        low, high = die.attributes.get("DW_AT_low_pc"), die.attributes.get("DW_AT_high_pc")
        if low and high:
            yield low.value, high.value + low.value * (high.form != "DW_FORM_addr")
        return
    base = unit.get_top_DIE().attributes.get("DW_AT_low_pc")
    base = base.value if base else 0
    offset = die.attributes["DW_AT_ranges"].value
    for entry in dwarf.range_lists().get_range_list_at_offset(offset, unit):
        if isinstance(entry, BaseAddressEntry):
            base = entry.base_address
        else:
            start = 0 if entry.is_absolute else base
            yield start + entry.begin_offset, start + entry.end_offset
