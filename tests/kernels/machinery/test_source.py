"""What Python reads from a kernel's C declaration, and how it refuses arguments that do not fit
it."""

import ctypes
import inspect
import math
import struct

import pytest
import torch

from llama_from_scratch.kernels.machinery.source import (
    FOLDER,
    OLDEST,
    REAL_NAMES,
    Program,
    Source,
    pack,
)
from llama_from_scratch.kernels.machinery.tensor_map import N_BYTES, TensorMap

DECLARATION = '''
constexpr int THREADS = 128;
// extern "C" __global__ void not_an_entry(int n) {}
extern "C" __global__ void __launch_bounds__(THREADS) first(
    const real* x,      // read, and a comma
    real* y, float* sums_or_null, long long n_columns, int n, unsigned seed, float eps,
    double scale, accum start) {}
extern "C" __global__ void __launch_bounds__(256, 2) second(
    const unsigned char* flags, double* y) {}
extern "C" __global__ void third(
    const accum* x, int* count, long long* where, unsigned* word, bf16* b, fp16* h) {}
'''
SOURCES = sorted(path.stem for path in FOLDER.glob("*.cu"))


def program(text=DECLARATION, real=torch.bfloat16):
    return Program(source=Source(name="example", text=text, headers={}), real=real)


def arguments(**changes):
    """What `first` takes, in order, some of it changed."""
    args = dict(x=torch.zeros(8, dtype=torch.bfloat16), y=torch.zeros(8, dtype=torch.bfloat16),
                sums=torch.zeros(4),
                n_columns=2**40, n=-3, seed=2**32 - 1, eps=1e-5, scale=0.1, start=0.1)
    return [*(args | changes).values()]


def value_bytes(packed, index, size):
    return ctypes.string_at(packed.pointers[index], size)


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("real", REAL_NAMES, ids=str)
def test_every_entry_point_of_every_kernel_parses(name, real):
    source = Source.read(name)
    code = "\n".join(line.split("//")[0] for line in source.text.splitlines())
    assert len(source.entries) == code.count("__global__") > 0, "a kernel that Python does not see"
    if real in source.reals:
        assert set(Program(source=source, real=real).packings) == set(source.entries)
    for entry in source.entries.values():
        assert entry.parameters and 32 <= entry.max_threads <= 1024 and entry.max_threads % 32 == 0
        first, after = (source.text.splitlines()[line] for line in (entry.line - 1, entry.line))
        assert 'extern "C"' in first and entry.name in first + after


def test_a_declaration_is_read_with_its_comments_bounds_and_line():
    entries = program().source.entries
    assert [*entries] == ["first", "second", "third"]
    assert [entry.max_threads for entry in entries.values()] == [128, 256, 1024]
    assert [entry.line for entry in entries.values()] == [4, 8, 10]
    read = [(p.name, p.c_type, p.is_pointer, p.is_const) for p in entries["first"].parameters]
    assert read[:3] == [("x", "real", True, True), ("y", "real", True, False),
                        ("sums_or_null", "float", True, False)]
    assert read[3:] == [("n_columns", "long long", False, False), ("n", "int", False, False),
                        ("seed", "unsigned", False, False), ("eps", "float", False, False),
                        ("scale", "double", False, False), ("start", "accum", False, False)]
    assert [p.may_be_null for p in entries["first"].parameters[:3]] == [False, False, True]


@pytest.mark.parametrize("parameter",
                         ["size_t n", "const char* text", "real x", "bf16 x", "float** table",
                          "short n",
                                       "bool on", "std::size_t n", "int n[3]", "", "dim3 size"])
def test_a_declaration_that_python_could_not_call_is_refused_with_the_types_there_are(parameter):
    with pytest.raises(ValueError, match="a parameter of bad must be .* of the types .*long long"):
        _ = program(f'extern "C" __global__ void bad(float* y, {parameter}) {{}}').source.entries


def test_an_unknown_kernel_and_an_unknown_entry_point_name_those_there_are():
    with pytest.raises(ValueError, match=f"one of {', '.join(SOURCES)}; got 'rms_nrom'"):
        Source.read("rms_nrom")
    with pytest.raises(ValueError, match="entry points first, second, third; got 'fourth'"):
        program().entry("fourth")
    with pytest.raises(ValueError, match="entry points first, second, third; got 'fourth'"):
        pack(program(), "fourth", [])


def test_a_program_refuses_dtypes_that_the_kernels_do_not_compute_in():
    with pytest.raises(ValueError, match="torch.bfloat16.*got torch.int32"):
        program(real=torch.int32)


def with_lines(*lines):
    return Source(name="example", headers={}, text="\n".join(["// What it does.", *lines]))


def test_a_source_says_in_which_dtypes_it_computes_and_without_a_word_in_all():
    assert with_lines().reals == tuple(REAL_NAMES)
    assert with_lines("// real: bf16 fp16").reals == (torch.bfloat16, torch.float16)
    assert with_lines("// really: bf16", "    // real: bf16").reals == tuple(REAL_NAMES)
    with pytest.raises(ValueError, match="example.cu computes in torch.bfloat16; got "
                                         "torch.float32"):
        Program(source=with_lines("// real: bf16"), real=torch.float32)


@pytest.mark.parametrize("line, oldest, is_only, runs_on, not_on", [
    ("", OLDEST, False, ["sm_75", "sm_90", "sm_90a", "sm_120"], []),
    ("// architectures: sm_80 and newer", "sm_80", False, ["sm_80", "sm_89", "sm_90", "sm_100"],
     ["sm_75"]),
    ("// architectures: sm_90a", "sm_90a", True, ["sm_90a"], ["sm_90", "sm_89", "sm_100"])])
def test_a_source_says_for_which_gpus_it_is(line, oldest, is_only, runs_on, not_on):
    source = with_lines(line)
    assert source.architectures == (oldest, is_only)
    assert all(map(source.runs_on, runs_on)) and not any(map(source.runs_on, not_on))


TILES = '''extern "C" __global__ void tiles(
    const __grid_constant__ TensorMap x, real* y, const __grid_constant__ TensorMap z, int n) {}'''


def test_a_tensor_map_is_passed_by_value_and_its_tensor_lives_as_long_as_the_arguments():
    y = torch.zeros(8, dtype=torch.bfloat16)
    x, z = (TensorMap(tensor=torch.zeros(1, 8, n, 64, dtype=torch.bfloat16), box=(1, 8, 1, 64))
            for n in (1, 2))
    packed = pack(program(TILES), "tiles", [x, y, z, 7])
    assert [value_bytes(packed, i, N_BYTES) for i in (0, 2)] == [x.readable(), z.readable()]
    assert value_bytes(packed, 3, 4) == struct.pack("i", 7)
    assert [each.data_ptr() for each in packed.tensors] == [
        x.tensor.data_ptr(), y.data_ptr(), z.tensor.data_ptr()]
    encoded = pack(program(TILES), "tiles", [x, y, z, 7], encode=lambda each: b"e" * N_BYTES)
    assert value_bytes(encoded, 2, N_BYTES) == b"e" * N_BYTES
    parameters = program(TILES).source.entries["tiles"].parameters
    assert [p.is_map for p in parameters] == [True, False, True, False]


@pytest.mark.parametrize("arg, got", [
    (torch.zeros(1, 8, 1, 64, dtype=torch.bfloat16), "got Tensor"), (None, "got NoneType"),
    (TensorMap(tensor=torch.zeros(1, 8, 1, 64, dtype=torch.float16), box=(1, 8, 1, 64)),
     "got one of torch.float16")])
def test_what_is_no_tensor_map_of_the_program_s_dtype_is_refused(arg, got):
    good = TensorMap(tensor=torch.zeros(1, 8, 1, 64, dtype=torch.bfloat16), box=(1, 8, 1, 64))
    y = torch.zeros(8, dtype=torch.bfloat16)
    with pytest.raises(ValueError,
                       match=f"z of tiles must be a TensorMap of torch.bfloat16; {got}"):
        pack(program(TILES), "tiles", [good, y, arg, 7])
    with pytest.raises(OverflowError, match="n of tiles must fit int"):
        pack(program(TILES), "tiles", [good, y, good, 2**31])


def test_replace_changes_one_place_in_the_file_or_in_a_header_and_refuses_none_and_several():
    source = Source(name="example", text="one two two", headers={"common.cuh": "three"})
    assert source.replace("one", "1").text == "1 two two"
    assert source.replace("three", "3").headers == {"common.cuh": "3"}
    assert source.headers == {"common.cuh": "three"}
    for text, count in (("two", 2), ("four", 0)):
        with pytest.raises(ValueError, match=f"must occur once in example.cu, common.cuh; '{text}' "
                                             f"occurs {count} times"):
            source.replace(text, "")


def test_a_program_s_key_tells_texts_headers_and_dtypes_apart_and_equal_ones_together():
    base = Source(name="example", text="one", headers={"a.cuh": "two", "b.cuh": "three"})
    others = [base.replace("one", "1"), base.replace("three", "3"),
              Source(name="example", text="one", headers={"a.cuh": "three", "b.cuh": "two"})]
    keys = [Program(source=source, real=torch.float32).key for source in (base, *others)]
    keys += [Program(source=base, real=torch.float64).key]
    assert len(set(keys)) == len(keys)
    reordered = Source(name="example", text="one", headers=dict(reversed(base.headers.items())))
    assert Program(source=reordered, real=torch.float32).key == keys[0]


def test_each_argument_arrives_as_the_c_type_of_its_parameter():
    args = arguments()
    packed = pack(program(), "first", args)
    for i in range(3):
        assert value_bytes(packed, i, 8) == args[i].data_ptr().to_bytes(8, "little")
    expected = [("q", 2**40), ("i", -3), ("I", 2**32 - 1), ("f", 1e-5), ("d", 0.1), ("f", 0.1)]
    for i, (code, number) in enumerate(expected, start=3):
        assert value_bytes(packed, i, struct.calcsize(code)) == struct.pack(code, number), args[i]
        assert packed.pointers[i] % struct.calcsize(code) == 0, "aligned as C aligns it"


def test_a_python_float_arrives_as_a_c_float_and_not_as_the_low_half_of_a_double():
    packed = pack(program(), "first", arguments(eps=1.5))
    assert struct.unpack("f", value_bytes(packed, 6, 4)) == (1.5,)
    assert struct.pack("d", 1.5)[:4] != struct.pack("f", 1.5), "else this test could not see it"


def test_accum_is_a_double_in_the_double_program_alone():
    doubles = dict(x=torch.zeros(8, dtype=torch.float64), y=torch.zeros(8, dtype=torch.float64))
    packed = pack(program(real=torch.float64), "first", arguments(**doubles))
    assert value_bytes(packed, 8, 8) == struct.pack("d", 0.1)
    third = [torch.zeros(4, dtype=dtype) for dtype in
             (torch.float64, torch.int32, torch.int64, torch.uint32, torch.bfloat16, torch.float16)]
    assert pack(program(real=torch.float64), "third", third).tensors == tuple(third)
    with pytest.raises(ValueError, match="x of third must be torch.float32 in this program; got "
                                         "torch.float64"):
        pack(program(real=torch.float16), "third", third)


def test_packed_arguments_keep_their_tensors_alive_and_know_their_device():
    packed = pack(program(), "first", arguments(x=torch.full((8,), 3.0, dtype=torch.bfloat16)))
    address = int.from_bytes(value_bytes(packed, 0, 8), "little")
    assert ctypes.string_at(address, 2) == b"\x40\x40"
    assert packed.device == torch.device("cpu") and len(packed.tensors) == 3


def test_none_is_a_null_pointer_where_the_name_allows_it():
    packed = pack(program(), "first", arguments(sums=None))
    assert value_bytes(packed, 2, 8) == bytes(8) and len(packed.tensors) == 2
    with pytest.raises(ValueError, match="y of first must be a tensor; got NoneType"):
        pack(program(), "first", arguments(y=None))


@pytest.mark.parametrize("change, message", [
    (dict(x=torch.zeros(8)),
     "x of first must be torch.bfloat16 in this program; got torch.float32"),
    (dict(sums=torch.zeros(4, dtype=torch.bfloat16)),
     "sums_or_null of first must be torch.float32"),
    (dict(x=torch.zeros(8, 2, dtype=torch.bfloat16)[:, 0]), r"no gaps in memory; got shape \(8,\) "
                                                            r"with strides \(2,\)"),
    (dict(y=torch.zeros(4, 8, dtype=torch.bfloat16).T), r"no gaps in memory; got shape \(8, 4\) "
                                                        r"with strides \(1, 8\)"),
    (dict(y=torch.zeros(1, dtype=torch.bfloat16).expand(8)), r"no gaps.* strides \(0,\)"),
    (dict(y=torch.zeros(9, dtype=torch.bfloat16)[1:]), "start at a multiple of 16 bytes.* starts 2 "
                                                       "bytes after one"),
    (dict(x=torch.zeros(8, dtype=torch.bfloat16, device="meta")), "all tensors .* one device; "
                                                                  "first got cpu, meta"),
    (dict(x=1.0), "x of first must be a tensor; got float"),
])
def test_a_tensor_that_does_not_fit_is_refused_by_name(change, message):
    with pytest.raises(ValueError, match=message):
        pack(program(), "first", arguments(**change))


@pytest.mark.parametrize("change, error, message", [
    (dict(n=2**31), OverflowError, "n of first must fit int, -2147483648 to 2147483647; got "
                                   "2147483648"),
    (dict(seed=-1), OverflowError, "seed of first must fit unsigned"),
    (dict(n_columns=2**63), OverflowError, "n_columns of first must fit long long"),
    (dict(eps=1e39), OverflowError, "eps of first must fit float; got 1e\\+39"),
    (dict(scale=10**400), OverflowError, "scale of first must fit double"),
    (dict(n=1.0), TypeError,
     r"n of first must be a Python number that fits int; got 1.0 \(float\)"),
    (dict(n=True), TypeError, "n of first .* got True"),
    (dict(eps="1"), TypeError, "eps of first"),
    (dict(eps=torch.ones(())), TypeError, "eps of first .*Tensor"),
    (dict(eps=None), TypeError, "eps of first .*None"),
])
def test_a_number_that_its_c_type_cannot_hold_is_refused_by_name(change, error, message):
    # the tests' own check of types looks at one argument at random, which may be this one
    unchecked = inspect.unwrap(pack)
    with pytest.raises(error, match=message):
        unchecked(program(), "first", arguments(**change))


@pytest.mark.parametrize("number", [0, 3, -2**31, math.inf, -math.inf, 1e-50, 3.4e38])
def test_a_float_parameter_takes_whole_numbers_infinities_and_what_rounds_to_zero(number):
    packed = pack(program(), "first", arguments(eps=number))
    assert struct.unpack("f", value_bytes(packed, 6, 4)) == (ctypes.c_float(number).value,)


def test_a_wrong_number_of_arguments_lists_the_parameters():
    with pytest.raises(ValueError, match=r"second takes 2 arguments \(flags, y\); got 1"):
        pack(program(), "second", [torch.zeros(1, dtype=torch.uint8)])


def test_a_launch_without_a_tensor_is_refused_because_nothing_says_where_to_run():
    with pytest.raises(ValueError, match="one device; f got no tensor"):
        pack(program('extern "C" __global__ void f(float* x_or_null) {}'), "f", [None])
