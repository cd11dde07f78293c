"""Measures: tensors in, numbers out.

A measure is a function of tensors that returns a `Value`, or a small frozen dataclass of numbers.
It is pure: no files, no state, no draw from the global random number generators (a
`torch.Generator` is passed in), no change to what it is given, float64 inside. A wrong call (shape,
dtype, range) raises ValueError and says what was expected and what came; a right call on data that
cannot be measured gives nan with the reason.

To add one, write one file here, named by the field's term, whose docstring gives the definition,
its source, the range and units of the value and when it is missing; give every constant that the
source leaves open a named argument; and write one test file that compares it with an independent
reference or a closed form, and with a control on which it must stay silent.
"""
