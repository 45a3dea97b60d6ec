"""talk3d: a 3D talking portrait from one ordinary video of one person."""

__version__ = "0.1.0"
