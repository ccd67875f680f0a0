"""The order of the tests, and which of them share a worker."""

import importlib.util
from pathlib import Path

SPEC = importlib.util.spec_from_file_location("order_of_tests",
                                              Path(__file__).with_name("conftest.py"))
ORDER = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(ORDER)
PROOF = f"{ORDER.PROOFS}::test_x"


def test_a_file_shares_a_worker_and_the_proof_of_a_chapter_has_one_for_itself():
    assert ORDER.shares_a_worker_with("tests/model/test_norm.py::test_x[a]") == (
        "tests/model/test_norm.py")
    assert ORDER.shares_a_worker_with(f"{PROOF}[12_rope]") == f"{PROOF}[12_rope]"
    assert ORDER.shares_a_worker_with(PROOF) == ORDER.PROOFS


def test_what_takes_longest_begins_first_and_is_there():
    ids = ["tests/model/test_norm.py::test_x", "tests/browser/test_browser.py::test_y", PROOF,
           f"{ORDER.FIRST[1]}vision_encoder]", f"{ORDER.FIRST[0]}vision_adapter]"]
    assert sorted(ids, key=ORDER.place) == ids[::-1]
    root = Path(__file__).parents[1]
    assert (root / ORDER.PROOFS).is_file()
    name = ORDER.FIRST[0].split("::")[1].split("[")[0]
    assert f"def {name}(" in (root / ORDER.PROOFS).read_text("utf-8")
