"""All operations that the trial compares and times.

Notebook 30.
"""

from llama_from_scratch.kernels.trial.attending import ATTENDING
from llama_from_scratch.kernels.trial.operation import Operation
from llama_from_scratch.kernels.trial.pointwise import POINTWISE
from llama_from_scratch.kernels.trial.products import PRODUCTS

OPERATIONS: tuple[Operation, ...] = (*POINTWISE, *ATTENDING, *PRODUCTS)
