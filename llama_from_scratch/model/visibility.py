"""Which tokens the new tokens may see. Found once per pass, for each chunk size of the layers.

`Llama.prepare` asks this part and hands the answer to all blocks. It has no parameters and knows
only the tokens that this process has. Where the keys are elsewhere, such as on other ranks, another
part takes its place, together with the attention leaf that reads what it makes.

Notebook 15.
"""

from collections.abc import Collection, Mapping

from torch import nn

from llama_from_scratch.model.kv_cache import KVCache
from llama_from_scratch.model.mask import Tokens, Visible, VisibleRule


class Visibility(nn.Module):
    """A `Visible` per chunk size, as a module without parameters that can be exchanged."""

    def forward(
        self, new: Tokens, *, batch_size: int, chunk_sizes: Collection[int | None],
        cache: KVCache | None,
    ) -> Mapping[int | None, VisibleRule]:
        """Returns the rule for each chunk size. With a `cache`, it reserves room for `new` there.

        Raises ValueError if they do not fit.
        """
        if cache is not None:
            cache.extend(new, batch_size=batch_size)
        return {size: Visible(tokens=new if cache is None else cache.tokens_in(size),
                              n_queries=new.positions.shape[1], chunk_size=size)
                for size in chunk_sizes}
