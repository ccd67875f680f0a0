from llama_from_scratch.train.page import Page
from llama_from_scratch.train.progress import TrainingProgress
from llama_from_scratch.train.records import Evaluation, Step


def step(number, *, is_validated=False):
    evaluation = Evaluation(loss=2.0, bits_per_byte=1.25, n_targets=10, n_bytes=30)
    return Step(step=number, loss=3.14159, lr=1e-3, grad_norm=1.0, n_tokens=2048, time_s=0.5,
                validation=evaluation if is_validated else None)


def test_the_page_shows_bar_words_and_the_latest_sample_without_markup_of_the_model():
    page = Page()
    show = TrainingProgress(n_steps=4, what="small, seed 0", sample=lambda: "<b>Tim</b> ran.",
                            show=page)
    show(step(0))
    show(step(1, is_validated=True))
    assert (page.bar.max, page.bar.value) == (4, 2)
    assert "small, seed 0" in page.words.value and "4,096 tokens/s" in page.words.value
    assert "validation 2.000" in page.words.value
    assert "&lt;b&gt;Tim&lt;/b&gt; ran." in page.sample.value


def test_nothing_that_varies_is_stored_with_the_notebook():
    bundle = Page()._repr_mimebundle_()
    assert bundle["text/plain"] == "a bar shows the training while the cell runs"
