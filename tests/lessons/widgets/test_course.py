"""The picture of all exercises shows what is done."""


from llama_from_scratch.lessons import exercises


def test_view_shows_the_readers_progress_and_its_still_picture_does_not(place):
    from llama_from_scratch.lessons.widgets.course import ProgressView

    view = ProgressView(**place)
    before, still = view.picture.value, view._repr_mimebundle_()["image/png"]
    assert view.words.value == "0 of 3 exercises done, 0 of 1 milestones reached."
    exercises.passed("12.1", **place)
    view.again.click()
    assert view.words.value == "1 of 3 exercises done, 0 of 1 milestones reached."
    assert view.picture.value != before
    bundle = view._repr_mimebundle_()
    assert bundle["image/png"] == still and "application/vnd.jupyter.widget-view+json" in bundle
    place["file"].write_text("{")
    view.again.click()
    assert ("0 of 1 milestones reached. The record of your "
            "progress could not be read." in view.words.value)


def test_picture_has_a_square_for_each_exercise(chapter):
    from matplotlib.colors import to_hex

    from llama_from_scratch.lessons.figures import BLUE, ORANGE
    from llama_from_scratch.lessons.widgets.course import draw

    found = exercises.chapters(chapter.parent)
    ax = draw(found, done=frozenset({"12.1"}), reached=frozenset({"12"})).axes[0]
    assert ([to_hex(patch.get_facecolor()).upper() == BLUE for patch in ax.patches]
            == [True, False, False])
    flag, *texts = ax.texts
    assert (flag.get_text(), flag.get_color()) == ("⚑", ORANGE)
    assert [text.get_text() for text in texts] == ["✓", "★★", "★★★", "20 minutes left"]
    plain = draw(found, done=frozenset(), reached=frozenset({"13"})).axes[0]
    assert plain.texts[0].get_color() != ORANGE
