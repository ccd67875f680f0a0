from random import Random

from llama_from_scratch.tune.world.documents import list_document, scene_document
from llama_from_scratch.tune.world.leaks import leaks


def test_answers_of_a_document_were_stated_before():
    for seed in range(200):
        text = scene_document(Random(seed)).lower()
        facts, _, asked = text.partition("?")
        answer = asked.strip().partition(".")[0]
        assert answer in facts


def test_the_second_list_is_the_first():
    for seed in range(200):
        text = list_document(Random(seed))
        items = text.partition(".")[0].split()
        again = text.partition(".")[2].lower()
        found = [item for item in items if item.lower() in again]
        assert found == items or (len(found) >= 1 and text.count(".") == 3), text


def test_documents_have_no_held_out_pair():
    assert not leaks(scene_document(Random(seed)) for seed in range(3000))
