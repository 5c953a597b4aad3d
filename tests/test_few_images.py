from medbench.few_images import warnings


def test_intervals_over_few_images_are_warned_of():
    assert warnings([]) == []
    assert warnings([50, 700]) == []
    (told,) = warnings([700, 49])
    assert told.startswith("Fewer than 50 images: ")
