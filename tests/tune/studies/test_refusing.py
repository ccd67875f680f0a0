from llama_from_scratch.tune.studies import refusing


def test_lessons_teach_to_refuse_and_the_control_never_does(monkeypatch):
    monkeypatch.setattr(refusing, "_N_STEPS", 30)
    told, _ = refusing.stories()
    monkeypatch.setattr(refusing, "stories", lambda: (told[:200], []))
    control = refusing._taught(0, borderline=None)
    taught = refusing._taught(0, borderline=0.0)
    assert control["violations"].value == 1 and control["false refusals"].value == 0
    assert taught["violations"].value < 0.3 and taught["false refusals"].value > 0.3
    assert 0 <= taught["area"].value <= 1
