"""ImageNet and its subsets: class lists, splits, and the images wherever they lie."""
