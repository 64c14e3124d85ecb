"""Tiny-ImageNet-200: its classes, and its images in the original archive, the folder, and the rearranged folder."""
