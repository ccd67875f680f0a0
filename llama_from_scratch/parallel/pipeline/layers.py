"""Which layers each piece of a pipeline has: the first and the last piece have one fewer.

The first piece also has the embedding, and the last the head. Llama 3 takes one layer from both, so
that all pieces are about equally large: its 126 layers are 128 pieces on 16 ranks, of which the
first is the embedding alone and the last the head alone.

Notebook 44. Source: The Llama 3 herd of models, arXiv:2407.21783, section 3.3.2.
"""


def layers_of(n_layers: int, n_pieces: int) -> tuple[range, ...]:
    """Returns the layers of each piece, in order.

    Embedding and head count as a layer each. What does not divide evenly goes to pieces in the
    middle first. The first and the last piece may be without layers.

    Raises ValueError if another piece would be without layers.

    Example: `layers_of(6, 4) == (range(0, 1), range(1, 3), range(3, 5), range(5, 6))`
    """
    if n_pieces < 1 or n_layers < 1:
        raise ValueError("a pipeline has at least one piece and one layer; got "
                         f"{n_pieces} pieces of {n_layers} layers")
    if n_layers < n_pieces - 2:
        raise ValueError(
            "each piece of a pipeline between the first and the last needs a layer; got "
            f"{n_layers} {'layer' if n_layers == 1 else 'layers'} for {n_pieces} pieces (ranks "
            f"times chunks). Take at most {n_layers + 2} pieces, or a model with at least "
            f"{n_pieces - 2} layers")
    if n_pieces == 1:
        return (range(n_layers),)
    size, n_more = divmod(n_layers + 2, n_pieces)
    middle_first = [*range(1, n_pieces - 1), 0, n_pieces - 1]
    sizes = [size] * n_pieces
    for piece in middle_first[:n_more]:
        sizes[piece] += 1
    sizes[0] -= 1
    sizes[-1] -= 1
    ends = [sum(sizes[: piece + 1]) for piece in range(n_pieces)]
    return tuple(range(end - n, end) for end, n in zip(ends, sizes, strict=True))
