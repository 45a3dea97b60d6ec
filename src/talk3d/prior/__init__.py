"""The generative prior: its networks, the generator that composes them with the renderer, and its files."""
