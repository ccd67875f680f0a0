"""Finds out why two results differ.

Each diagnosis undoes one mistake and applies if the results are then equal. So a wrong diagnosis
cannot be given: `transposed` reports swapped axes only if swapping them back gives the expected
values. The mistakes are typical of learners who build a Llama. Used by `difference`, in every
notebook.

    sameness     when two tensors count as equal
    shapes       right values, wrong shape
    masks        a wrong mask, and values that are not finite
    places       right numbers in the wrong places
    factors      numbers that are wrong by a rule: a sign, a factor, an offset
    softmax      a wrong logarithm, axis or scale before or after a softmax
    precision    numbers that were rounded to a smaller format
    numbers      one wrong number: twice the right one, its reciprocal, another unit
    catalog      all diagnoses in order, and `diagnose`
"""
