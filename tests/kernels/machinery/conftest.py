"""A recording libcuda for the tests of the launcher."""

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def fake_path(tmp_path_factory):
    if not (compiler := next(filter(None, map(shutil.which, ("cc", "gcc", "clang", "g++"))), None)):
        pytest.skip("needs a C compiler, as of `apt install gcc`, to build the fake driver")
    path = tmp_path_factory.mktemp("driver") / "libcuda.so"
    source = Path(__file__).with_name("fake_libcuda.c")
    subprocess.run([compiler, "-x", "c", "-O1", "-pthread", "-shared", "-fPIC", source, "-o", path],
                   check=True)
    return path


@pytest.fixture
def fake(fake_path, tmp_path):
    """A libcuda with nothing on record; its own copy, so that no test sees another's settings."""
    library = ctypes.CDLL(str(shutil.copy(fake_path, tmp_path / "libcuda.so")))
    library.fake_log.restype = ctypes.c_char_p
    library.fake_arguments.restype = ctypes.POINTER(ctypes.c_ubyte)
    return library
