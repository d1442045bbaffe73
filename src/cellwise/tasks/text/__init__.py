"""A small language model over characters: what the pictures of a trained network are drawn from."""
