"""Kettle & Leaf, a small tea shop for Proctor's demonstration to test."""
