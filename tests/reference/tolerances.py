"""How near two numbers have to be where nothing but rounding tells them apart.

A tolerance of another kind stands where it is used, with its reason.
"""

# Float64, the same quantity by other sums and products: a thousand operations at most,
# each wrong by 1e-16 of terms of order one, and inverses that enlarge that a
# thousandfold. What a mistake does (a discount, an index, a sign) is larger by far.
ROUNDING = 1e-10

# Numbers that were stored in float32, which rounds to 6e-8.
SINGLE = 1e-6
