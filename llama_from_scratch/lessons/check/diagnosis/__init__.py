"""Why two results differ: a diagnosis undoes one mistake, and applies if what is left is equal.

So a wrong diagnosis cannot be given: `transposed` claims swapped axes only if swapping them back
gives the expected values. The names of mistakes are those that learners make while building a
Llama. Used by `difference`, in every notebook.

    sameness     when two tensors count as equal
    shapes       the same values in another shape
    masks        a mask that lets other pairs through, and values that are not finite
    places       the right numbers in the wrong places
    factors      the wrong numbers by a rule: a sign, a factor, an offset
    softmax      a logarithm, an axis or a scale wrong around a softmax
    precision    right within the rounding of a smaller number format
    catalog      all of them in order, and `diagnose`
"""
