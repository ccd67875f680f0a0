import pytest

from llama_from_scratch.tune.studies import coding


@pytest.fixture(autouse=True)
def small(monkeypatch):
    usual = coding.functions.function_tasks
    monkeypatch.setattr(coding, "_N_TASKS", 3)
    monkeypatch.setattr(coding, "_N_DRAWN", 4)
    monkeypatch.setattr(coding.functions, "function_tasks",
                        lambda n, split, seed: usual(min(n, 96), split, seed=seed))


def test_a_model_without_training_writes_no_program():
    found = coding._taught(0, n_steps=0)
    assert set(found) == {"pass@1", "pass@4", "chosen by two tests"}
    assert found["pass@1"].value == found["chosen by two tests"].value == 0


def test_right_programs_are_counted_and_chosen(monkeypatch):
    """A writer that is right in one try of two, at the second place of each pair."""
    def answers(model, tokenizer, asked, *rest, **more):
        told = coding.functions.function_tasks(3, "test", seed=9)
        return ["def f(x): return None" if i % 2 == 0 else f" {told[i // 4].answer}"
                for i in range(len(asked))]

    monkeypatch.setattr(coding.evals, "ask", answers)
    found = coding._taught(0, n_steps=0)
    assert found["pass@1"].value == pytest.approx(0.5)
    assert found["pass@4"].value == found["chosen by two tests"].value == 1


def test_its_own_programs_change_the_model(monkeypatch):
    seen = []
    monkeypatch.setattr(coding.best_of, "fit", lambda model, prompts, *rest, score, n, **more:
                        seen.append((n, len(prompts))))
    coding._taught(0, n_steps=0, n_own=8)
    assert seen == [(8, 96)]
