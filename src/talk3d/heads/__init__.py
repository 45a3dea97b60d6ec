"""Synthetic parametric heads rendered with exact truth: camera, depth, alpha, labels, landmarks, expression."""
