"""Source from a notebook, with the numbers of its lines."""

from llama_from_scratch.lessons import gpu


def test_listing_numbers_lines_as_traces_do(program, summed):
    line = summed.traffic[0].line
    assert gpu.listing(program).split("\n")[line.number - 1] == f"{line.number:3}     {line.text}"
