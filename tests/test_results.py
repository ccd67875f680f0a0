"""The measured figures of the README: each has a benchmark that makes it again, and its file."""

import json
import re
from pathlib import Path

import pytest

from llama_from_scratch.config import LlamaConfig

ROOT = Path(__file__).resolve().parents[1]
RESULTS = sorted((ROOT / "benchmarks" / "results").glob("*.json"))
COMMAND = re.compile(r"`python benchmarks/(\w+)\.py")


@pytest.mark.parametrize("file", RESULTS, ids=lambda file: file.stem)
def test_a_result_names_its_machine_and_versions_and_has_a_benchmark(file):
    found = json.loads(file.read_text("utf-8"))
    assert (ROOT / "benchmarks" / f"bench_{file.stem}.py").is_file()
    assert {"date", "processor", "python", "versions"} <= found["about"].keys() and len(found) > 1
    fields = {*LlamaConfig.__dataclass_fields__}
    assert found.get("shape", {}).keys() <= fields, "settings that no longer exist"


def test_each_benchmark_that_the_readme_names_exists_and_has_a_result():
    named = set(COMMAND.findall((ROOT / "README.md").read_text("utf-8")))
    assert {"bench_train", "bench_generate", "bench_load", "bench_tokenizer"} <= named
    for name in named:
        assert (ROOT / "benchmarks" / f"{name}.py").is_file(), name
        assert ROOT / "benchmarks" / "results" / f"{name.removeprefix('bench_')}.json" in RESULTS
