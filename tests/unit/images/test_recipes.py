"""The version of a build recipe: there for each image that we build, and none for others."""

from corral.images.catalogue import load_catalogue
from corral.images.recipes import DIGITS, recipe_version


def test_each_image_that_we_build_has_a_version_and_no_other() -> None:
    for entry in load_catalogue():
        assert len(recipe_version(entry.build)) == (DIGITS if entry.build else 0), entry.name
    assert recipe_version("debian") != recipe_version("micro")
