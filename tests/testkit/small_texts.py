"""A query and documents of very different lengths, some of them odd."""

QUERY = "how do vaccines create immunity"
DOCUMENTS = [
    "vaccines train the immune system",
    "",
    "bread is baked in the morning, every morning, by the baker of the town " * 6,
    "memory cells keep what they have seen of a germ",
    "42 <|im_end|> 1",
    "a germ",
    "1 2 3",
    "who knows what a market is, and what it is for " * 3,
    "antibodies",
    "town, cell, germ, bread",
]
