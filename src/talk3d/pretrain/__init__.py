"""Training the generative prior on rendered synthetic heads, measuring its canonical landmarks, and importing others."""
