import pytest

from llama_from_scratch.parallel.pipeline.layers import layers_of


def sizes(n_layers, n_pieces):
    return [len(layers) for layers in layers_of(n_layers, n_pieces)]


@pytest.mark.parametrize("n_layers", range(1, 20))
def test_every_layer_is_in_one_piece_in_order_and_only_the_ends_may_be_empty(n_layers):
    for n_pieces in range(1, n_layers + 3):
        pieces = layers_of(n_layers, n_pieces)
        assert [i for layers in pieces for i in layers] == list(range(n_layers))
        assert len(pieces) == n_pieces and all(map(len, pieces[1:-1]))
        work = [len(layers) for layers in pieces]
        work[0] += 1
        work[-1] += 1
        assert max(work) - min(work) <= 1 or n_pieces == 1


def test_llama_3_405b_has_one_layer_fewer_at_both_ends():
    assert sizes(126, 16) == [7, *[8] * 14, 7]
    assert sizes(126, 128) == [0, *[1] * 126, 0]


def test_what_is_left_over_goes_to_the_middle_first():
    assert sizes(6, 4) == [1, 2, 2, 1]
    assert sizes(7, 4) == [1, 3, 2, 1]
    assert sizes(32, 4) == [7, 9, 9, 7]


def test_one_piece_has_everything():
    assert layers_of(5, 1) == (range(5),)


def test_a_piece_in_the_middle_without_layers_is_refused_with_the_cure():
    assert sizes(3, 5) == [0, 1, 1, 1, 0]
    with pytest.raises(ValueError, match=r"between the first and the last needs a layer; got 3 "
                       r"layers for 6 pieces .*Take at most 5 pieces, or a model with at least 4"):
        layers_of(3, 6)


@pytest.mark.parametrize(("n_layers", "n_pieces"), [(0, 1), (4, 0)])
def test_no_layers_or_no_pieces_are_refused(n_layers, n_pieces):
    with pytest.raises(ValueError, match="at least one piece and one layer; got"):
        layers_of(n_layers, n_pieces)
