"""A model whose every part matters to its text, and prompts of unequal length, for generation."""

import dataclasses

from hugging_face_twin import loud

from llama_from_scratch import family
from llama_from_scratch.generate.sampling import Sampling

WARM = Sampling(temperature=1.0, top_k=40, repetition_penalty=1.1)
PROMPTS = [[5], [7, 8, 9, 10, 11], [300, 2, 2]]


def loud_model(**changes):
    return loud(dataclasses.replace(family.tiny("llama-3"), **changes))
