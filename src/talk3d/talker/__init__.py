"""Speech to delta planes: audio features, tokens, the attention U-Net, training and speaking."""
