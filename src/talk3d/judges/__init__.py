"""Pretrained judges: networks that say how alike two pictures are, who is in them, and whether lips follow a voice."""
