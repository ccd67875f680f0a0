import matplotlib.pyplot as plt
import parity
import pytest
from drawings import faults, links, noted

from llama_from_scratch import family
from llama_from_scratch.lessons.figures import data_parallel
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.parallel.data_parallel import DataParallel
from llama_from_scratch.parallel.world import alone


@pytest.fixture
def drawn(monkeypatch):
    """The drawings that are made, to compare them with what they show."""
    yield noted(monkeypatch)
    plt.close("all")


@pytest.mark.parametrize("n_ranks", [2, 4, 8])
def test_each_rank_has_its_rows_and_all_gradients_meet_in_one_sum(drawn, n_ranks):
    batch = next(parity.batches(64, n_rows=8))
    shares = batch.split(8 // n_ranks)
    figure = data_parallel.replicas(shares, n_params=1234)
    ((drawing, _),) = drawn
    assert faults(figure, drawing) == []
    rows = [node for node in drawing.nodes if node.name.startswith("rows")]
    assert [node.lines[1] for node in rows] == [f"{share.n_targets} targets" for share in shares]
    assert rows[-1].name.endswith("to 7")
    grads = [node for node in drawing.nodes if node.name == "gradient of"]
    assert [node.lines[1] for node in grads] == [
        f"{share.n_targets} / {batch.n_targets}" for share in shares]
    assert links(drawing).count(("gradient of", "add up")) == n_ranks
    assert links(drawing).count(("add up", "the same step")) == n_ranks
    assert "1,234 weights" in figure.get_label()


def test_buckets_are_drawn_in_their_order_with_all_parameters_to_scale(drawn):
    strategy = DataParallel(Llama(family.tiny("llama-3")), alone(), bucket_bytes=200_000)
    figure = data_parallel.buckets(strategy)
    ((drawing, _),) = drawn
    assert faults(figure, drawing) == []
    sizes = [view.numel() for bucket in strategy.buckets for view in bucket.views.values()]
    widths = [node.width for node in drawing.nodes]
    assert len(widths) == len(sizes)
    large = [(w, n) for w, n in zip(widths, sizes, strict=True) if w > 0.06]
    assert {round(w / n * large[0][1] / large[0][0], 6) for w, n in large} == {1.0}
    notes = [note.text for note in drawing.notes]
    assert any("output.weight" in text for text in notes[:2])
    assert "tok_embeddings.weight" in notes[-1]
    assert figure.get_label().startswith(f"{len(strategy.buckets)} buckets")


def test_what_has_no_room_is_refused():
    batch = next(parity.batches(64, n_rows=16))
    with pytest.raises(ValueError, match="room for 8 ranks; got 16"):
        data_parallel.replicas(batch.split(1), n_params=1)
    strategy = DataParallel(Llama(family.tiny("llama-3")), alone(), bucket_bytes=0)
    with pytest.raises(ValueError, match="room for 12 buckets; got 39. Choose a larger"):
        data_parallel.buckets(strategy)
