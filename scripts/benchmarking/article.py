"""What the article asks of Keras's ImageDataGenerator; here for whoever measures against it, without importing it."""

AUGMENTATION = {
    "rescale": 1 / 255,
    "rotation_range": 40,
    "width_shift_range": 0.2,
    "height_shift_range": 0.2,
    "shear_range": 0.2,
    "zoom_range": 0.2,
    "horizontal_flip": True,
}
