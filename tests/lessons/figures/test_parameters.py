import matplotlib.pyplot as plt
import pytest
from drawings import faults, noted

from llama_from_scratch import family
from llama_from_scratch.checkpoint import names
from llama_from_scratch.lessons.figures import parameters
from llama_from_scratch.model.costs import param_shapes


@pytest.mark.parametrize("format", [names.HUGGING_FACE, names.META, names.GGUF])
def test_names_shapes_and_order_are_those_of_the_table(format, monkeypatch):
    config = family.config("llama-3.1-8b")
    made = noted(monkeypatch)
    parameters.moves(config, format=format, layer=1)
    ((drawing, figure),) = made
    assert faults(figure, drawing) == []
    written = [node.name for node in drawing.nodes]
    notes = {note.text for note in drawing.notes}
    for row in names.TABLE.per_layer:
        ours = f"layers.1.{row.ours}"
        if ours in param_shapes(config):
            assert row.ours.removesuffix(".weight") in written
            assert row.theirs[format].name.removesuffix(".weight") in written
            assert " × ".join(f"{n:,}" for n in param_shapes(config)[ours]) in notes
    turned = [name for name in written if "change places" in name]
    assert turned == (["rows of 32 heads change places", "rows of 8 heads change places"]
                      if format is names.HUGGING_FACE else [])
    assert ("rows of 2 change" in figure.get_label()) == (format is names.HUGGING_FACE)
    plt.close("all")


def test_a_layer_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="layers 0 to 3; got 4"):
        parameters.moves(family.tiny("llama-2"), layer=4)
