"""In which order the tests begin, and which of them share a worker.

A file stays with one worker, because its tests share ranks, kernels or pages. The proof of a
chapter shares nothing with others, so each is for itself. What takes longest begins first:
otherwise one worker would still run it when the others have ended. (pytest drops the paths of
single files from its command when it is given their folder, too, so their order there says
nothing.)
"""

import pytest

PROOFS = "tests/lessons/authoring/test_proof.py"
_PROOF = f"{PROOFS}::test_outputs_are_as_stored_blanks_wait_mistakes_are_named_and_cells_run_twice"
FIRST = (*(f"{_PROOF}[{chapter}" for chapter in ("22_", "21_", "47_", "45_", "44_", "17_", "00_")),
         PROOFS, "tests/browser/")


def shares_a_worker_with(nodeid: str) -> str:
    """What a test shares with others: its file, or only itself for the proof of a chapter."""
    path, _, test = nodeid.partition("::")
    return nodeid if path == PROOFS and test.endswith("]") else path


def place(nodeid: str) -> int:
    """The place of a test in the order; tests with the same place stay as they are."""
    return next((i for i, start in enumerate(FIRST) if nodeid.startswith(start)), len(FIRST))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: place(item.nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    from xdist.scheduler import LoadScopeScheduling

    class ByWhatTheyShare(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return shares_a_worker_with(nodeid)

    return ByWhatTheyShare(config, log)
