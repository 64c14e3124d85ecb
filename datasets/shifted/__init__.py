"""Test images from elsewhere than the training images: students are looked at on them, and never trained for them."""
