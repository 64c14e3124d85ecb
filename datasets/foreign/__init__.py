"""Distilled sets made elsewhere: what their files are, which class is which, and whether test images are among them."""
