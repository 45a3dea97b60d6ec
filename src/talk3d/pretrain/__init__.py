"""Training the generative prior on rendered synthetic heads, and measuring its canonical landmarks."""
