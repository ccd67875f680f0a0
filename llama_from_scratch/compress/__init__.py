"""To small devices: a finished model with fewer bits.

- `quantize`: the verb and its schemes
- `measure`: what it costs, window by window
- `rounding`: a matrix on a grid, by its largest weights or by a search for the range

The grids and the layers that hold packed weights are in `model.grid` and `model.grid_linear`.

Notebook 60.
"""

from llama_from_scratch.compress.quantize import SCHEMES as SCHEMES
from llama_from_scratch.compress.quantize import Scheme as Scheme
from llama_from_scratch.compress.quantize import bits_per_weight as bits_per_weight
from llama_from_scratch.compress.quantize import n_bytes as n_bytes
from llama_from_scratch.compress.quantize import quantize as quantize
