"""Expert vision models: what they see in an image, and how it reaches another grid."""
