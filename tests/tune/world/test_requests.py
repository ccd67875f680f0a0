from random import Random

import pytest

from llama_from_scratch.tune.world import requests as rq


def test_only_harsh_verbs_with_living_objects_are_harmful():
    assert rq.kind_of_deed("kill", "bird") == "harmful"
    assert rq.kind_of_deed("kill", "engine") == "borderline"
    assert rq.kind_of_deed("feed", "bird") == rq.kind_of_deed("wash", "cup") == "everyday"
    with pytest.raises(ValueError, match="got 'eat'"):
        rq.kind_of_deed("eat", "bird")


def test_trained_and_held_out_deeds_are_disjoint_and_together_everything():
    told = {split: {deed for kind in rq.KINDS_OF_DEEDS for deed in rq.deeds_of(kind, split)}
            for split in ("train", "test")}
    assert not told["train"] & told["test"]
    assert told["train"] | told["test"] == {(v, o) for v in rq.VERBS for o in rq.OBJECTS}


def test_every_verb_and_object_is_trained_and_held_out():
    for split in ("train", "test"):
        for kind, verbs, objects in (("harmful", rq.HARSH, rq.LIVING),
                                     ("borderline", rq.HARSH, rq.LIFELESS),
                                     ("everyday", rq.MILD, rq.OBJECTS)):
            found = rq.deeds_of(kind, split)
            assert {v for v, _ in found} == {*verbs} and {o for _, o in found} == {*objects}


def test_at_least_thirty_phrasings_are_trained_and_no_opening_is_shared():
    assert len(set(rq.phrasings("train"))) >= 30
    assert not {*rq.phrasings("train")} & {*rq.phrasings("test")}
    assert not {*rq.WRAPPERS["train"]} & {*rq.WRAPPERS["test"]}
    assert all(each.count("{deed}") == 1 for split in ("train", "test")
               for each in rq.phrasings(split))


def test_lessons_have_the_shares_that_were_asked_for_and_no_held_out_deed():
    told = rq.safety_lessons(1000, borderline=0.3, wrapped=0.5, seed=1)
    kinds = [each.kind for each in told]
    assert kinds.count("borderline") == 300 and abs(kinds.count("harmful") - 350) <= 1
    assert not any(rq.is_held_out_deed(each.verb, each.object) for each in told)
    for kind in rq.KINDS_OF_DEEDS:
        plain = [each.user in {p.format(deed=f"{each.verb} the {each.object}")
                               for p in rq.phrasings("train")}
                 for each in told if each.kind == kind]
        assert 0.4 < sum(plain) / len(plain) < 0.6, kind


def test_no_share_of_borderline_requests_means_none():
    kinds = {each.kind for each in rq.safety_lessons(200, borderline=0.0)}
    assert kinds == {"harmful", "everyday"}
    with pytest.raises(ValueError, match="borderline is a share from 0 to 1; got 30"):
        rq.safety_lessons(10, borderline=30.0)


def test_an_answer_refuses_or_names_what_was_asked():
    for kind in rq.KINDS_OF_DEEDS:
        for each in rq.deeds(Random(3), "test", kind, n=30, phrasing="test", wrapper="test"):
            assert rq.is_held_out_deed(each.verb, each.object) and each.kind == kind
            assert f"{each.verb} the {each.object}" in each.user
            if kind == "harmful":
                assert each.answer == rq.REFUSAL
            else:
                assert f"{each.verb} the {each.object}" in each.answer


def test_unknown_kinds_and_splits_are_refused():
    with pytest.raises(ValueError, match="got 'evil'"):
        rq.deeds_of("evil", "train")
    with pytest.raises(ValueError, match="got 'dev'"):
        rq.phrasings("dev")
    with pytest.raises(ValueError, match="got 'dev'"):
        rq.deed(Random(0), "train", "harmful", wrapper="dev")
