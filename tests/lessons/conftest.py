import matplotlib
import pytest
from turn_chapter import CELLS, write

matplotlib.use("Agg")  # no window, whatever the machine


@pytest.fixture(autouse=True)
def no_figure_left_by_another_test():
    import matplotlib.pyplot as plt

    plt.close("all")


@pytest.fixture(scope="session")
def tokenizer():
    """A small tokenizer of its own, so that no bundled file is needed."""
    from llama_from_scratch.tokenizer.byte_bpe import Tokenizer

    text = ("the old garden and the little girl and the lazy "
            "dog in the garden of grandma and grandpa, " * 3)
    return Tokenizer.train(text, 290, special_tokens=["<|begin_of_text|>", "<|end_of_text|>"])


@pytest.fixture
def model(tokenizer):
    """Three layers, four query heads on two key/value heads, and weights loud enough that attention
    is far from even.
    """
    import torch

    from llama_from_scratch.config import LayerSpec, LlamaConfig
    from llama_from_scratch.model.transformer import Llama

    torch.manual_seed(0)
    config = LlamaConfig(dim=32, n_heads=4, n_kv_heads=2, ffn_dim=48,
                         vocab_size=tokenizer.vocab_size, max_seq_len=64,
                         norm_eps=1e-5, rope_theta=1e4, layers=(LayerSpec(),) * 3)
    llama = Llama(config)
    with torch.no_grad():
        for weight in llama.parameters():
            weight.mul_(2.0)
    return llama


@pytest.fixture
def chapter(tmp_path):
    return write(tmp_path / "notebooks" / "12_turn.ipynb", *CELLS)


@pytest.fixture
def place(chapter, tmp_path):
    return {"folder": chapter.parent, "file": tmp_path / "runs" / "progress.json"}
