"""Text-to-image networks as priors: what they are told of each class, and the pipelines that they come in."""
