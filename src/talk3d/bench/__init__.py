"""Measurements that need our models."""
