import pytest
import torch
from small_seeing import seeing_model, some, tokenizer

from llama_from_scratch.train.exact_match import ExactMatch, exact_match, right_answers
from llama_from_scratch.train.picture_batches import all_questions, tiles_of
from llama_from_scratch.train.scenes import Scenes
from llama_from_scratch.vision.adapter import detach


@pytest.fixture(scope="module")
def words():
    return tokenizer()


@pytest.fixture(scope="module")
def model(words):
    model = seeing_model(words.vocab_size)
    for name, p in model.named_parameters():
        if name.endswith("gate.weight") and p.ndim == 1:
            torch.nn.init.constant_(p, 0.5)
    return model


def greedy(model, ids, images, *, n):
    """The n most likely next ids, one after the other."""
    for _ in range(n):
        seen = {} if images is None else {"images": images}
        ids = torch.cat([ids, model(ids, **seen)[:, -1:].argmax(-1)], dim=1)
    return ids[0, -n:].tolist()


@pytest.mark.parametrize("is_blind", [True, False])
def test_an_answer_counts_exactly_if_greedy_generation_writes_it(model, words, is_blind):
    asked = some(Scenes(), 8, split="test")
    questions, of_image = all_questions(asked)
    # A question whose answer the model writes: what it says is declared to be right.
    said = {}
    for question, i in zip(questions, of_image, strict=True):
        begin = [words.bos_id, *([] if is_blind else [model.config.image_id]),
                 *words.encode(question.text)]
        images = None if is_blind else model.encode(
            tiles_of([asked[i].picture], model.config.vision))
        answer = [*words.encode(" " + question.answer), words.eos_id]
        said[question.text, i] = greedy(model, torch.tensor([begin]), images,
                                        n=len(answer)) == answer
    found = right_answers(model, asked, words, is_blind=is_blind).tolist()
    assert found == [said[question.text, i]
                     for question, i in zip(questions, of_image, strict=True)]


def test_a_model_that_is_right_about_some_kinds_is_counted_by_kind():
    found = ExactMatch(n_right={"count": 3, "where": 0}, n_asked={"count": 4, "where": 4})
    assert found.shares == {"count": 0.75, "where": 0.0}
    assert found.share() == 0.375 and found.share("count") == 0.75


def test_the_same_seed_asks_the_same_questions(model, words):
    settings = dict(n_images=10, n_questions=2)
    one, same = (exact_match(model, Scenes(), words, **settings) for _ in range(2))
    assert one == same and sum(one.n_asked.values()) == 20


def test_a_text_model_is_asked_blind_or_not_at_all(model, words):
    text = detach(model)
    blind = exact_match(text, Scenes(), words, n_images=5, is_blind=True)
    assert blind == exact_match(model, Scenes(), words, n_images=5, is_blind=True)
    with pytest.raises(ValueError, match="no encoder.*vision.attach"):
        exact_match(text, Scenes(), words, n_images=5)
