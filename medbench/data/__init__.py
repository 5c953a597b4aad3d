"""Official files on disk: finding, reading, checking them, and opening the images in them."""
