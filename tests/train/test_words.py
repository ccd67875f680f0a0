import pytest
import torch

from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.train import words
from llama_from_scratch.train.digits import Digits
from llama_from_scratch.train.scenes import COLORS, HELD_OUT, SHAPES, Scenes
from llama_from_scratch.train.words import WordsStage

STORIES = ["Mia has a red kite. The kite is in the tree.", "Ben sees the moon. It is round."] * 8
TASKS = (Scenes(), Digits())


@pytest.fixture(scope="module")
def tokenizer():
    return words.words_tokenizer(STORIES, TASKS, vocab_size=430, n_pictures=200)


def test_each_word_of_a_scene_is_one_token(tokenizer):
    for word in (*COLORS, *SHAPES, "left", "right", "top", "bottom"):
        assert len(tokenizer.encode(f" {word}")) == 1, word


def test_the_text_model_reads_of_every_pair():
    told = [next(readings)[0] for readings in [words._readings(Scenes(), seed=0)]
            for _ in range(300)]
    for color, shape in HELD_OUT:
        assert any(f"{color} {shape}" in caption for caption in told)


def test_it_learns_stories_and_answers(tokenizer):
    torch.manual_seed(0)
    text, losses = Llama(words.small_text_config(tokenizer.vocab_size)), []
    words.train_words(text, tokenizer, STORIES, TASKS,
                      stage=WordsStage(n_steps=25, n_questions=8, n_stories=2, seq_len=32),
                      on_step=lambda step: losses.append(step.loss))
    assert sum(losses[-3:]) < 0.6 * sum(losses[:3])


def test_only_answers_count_fully(tokenizer):
    torch.manual_seed(0)
    text = Llama(words.small_text_config(tokenizer.vocab_size))
    row = words._row("left one, right two.", "What is the sum?", "three", tokenizer, is_told=True)
    ids, n_asked = row
    assert tokenizer.decode(ids[:n_asked]).endswith("What is the sum?")
    assert ids[-1] == tokenizer.eos_id and tokenizer.decode(ids[n_asked:-1]) == " three"
    losses = [-text(torch.tensor([ids[: i + 1]]))[0, -1].log_softmax(-1)[ids[i + 1]].item()
              for i in range(len(ids) - 1)]
    answer, rest = losses[n_asked - 1 :], losses[: n_asked - 1]
    expected = sum(answer) / len(answer) + 0.3 * sum(rest) / len(rest)
    assert words.answers_loss(text, [row], tokenizer).item() == pytest.approx(expected, rel=1e-4)


def test_right_in_words_counts_what_greedy_generation_would_write(tokenizer):
    torch.manual_seed(0)
    text = Llama(words.small_text_config(tokenizer.vocab_size))
    share = words.right_in_words(text, tokenizer, Scenes(), n=20)
    assert share == 0, "a fresh model knows nothing"
