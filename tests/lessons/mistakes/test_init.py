"""Every chapter lists the mistakes of its own exercises, with words that a message can show.

That each is refused and named by its check is proved with the notebooks, in authoring/test_proof.
"""

import pytest

from llama_from_scratch.lessons import exercises, mistakes

CHAPTERS = exercises.chapters()


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_each_mistake_belongs_to_a_function_of_an_exercise_with_code(chapter):
    sources = {exercise.id: exercise.source for exercise in CHAPTERS[chapter]}
    for exercise_id, found in mistakes.of_chapter(chapter).items():
        assert sources.get(exercise_id), exercise_id
        for mistake in found:
            assert mistake.of in sources[exercise_id], (exercise_id, mistake.of)
            assert not mistake.words[0].isupper() or mistake.words.split()[0].isupper() or (
                mistake.words.startswith("True")), mistake.words


def test_mistakes_are_found_by_the_number_of_the_exercise():
    assert len(mistakes.of("13.3")) >= 3 and mistakes.of("13.3")[0].of == "multi_query"
    with pytest.raises(ValueError, match=r"13\.99"):
        mistakes.of("13.99")


def test_a_mistake_says_in_words_what_was_done():
    listed = mistakes.Listed()
    with pytest.raises(ValueError, match="must say what the reader did"):
        @listed("13.1", of="f")
        def silent(x):
            return x
