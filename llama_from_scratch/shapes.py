"""The one legend of dimension letters, used in every signature, notebook and picture.

A letter has one meaning everywhere. Public functions carry jaxtyping annotations such as
`Float[Tensor, "B T D"]`. The tests check them; users pay nothing for them. Inside a function,
where the layout changes, a suffix of the name (`scores_BHTS`) gives the axes. The layout at every
boundary is (B, T, H, K). A transpose that a kernel needs stays inside that kernel.
"""

LEGEND = {
    "B": "batch: sequences processed together",
    "T": "query positions: the tokens being computed now",
    "S": "key positions: the tokens that can be looked at",
    "D": "model width, `dim`",
    "H": "query heads, `n_heads`",
    "G": "key/value heads, `n_kv_heads`",
    "K": "width of one head, `head_dim`",
    "R": "rotation pairs of RoPE, K/2",
    "F": "feed-forward width, `ffn_dim`",
    "V": "vocabulary, `vocab_size`",
    "N": "tokens of a whole batch, B*T",
    "L": "layers, `n_layers`",
    "E": "experts",
    "A": "experts active per token",
    "I": "images",
    "J": "tiles per image",
    "P": "patches per tile",
    "C": "colors",
    "W": "vision width",
}
