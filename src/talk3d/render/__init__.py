"""Planes and a camera to a picture: pure functions; decoder and super-resolution are passed in."""
