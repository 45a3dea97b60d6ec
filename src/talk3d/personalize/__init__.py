"""Making the prior one person's own: inversion, tuning and cameras (VIVE3D, method section 5)."""
