"""CoDA: representative real images of a class, towards which a text-to-image prior is pulled."""
