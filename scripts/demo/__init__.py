"""The scripts that make the demonstration: the `Emoji` dataset and the weights of ViT-Micro/8."""
