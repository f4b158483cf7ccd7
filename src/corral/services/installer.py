"""Media that are made: of an installer's kernel and initrd, and of the files that answer its questions."""

from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from corral.errors import CorralError
from corral.images.cpio import build_archive, regular
from corral.images.installer import grub_words
from corral.model.image import ImageSource, ImageSpec
from corral.model.requests import BuildImageRequest
from corral.services.context import Context
from corral.storage.seed import build_seed

# Only root reads an answer file inside of the installer.
_FILE_MODE: Final = 0o600
_SCHEMES: Final = ("", "http", "https")


def medium_spec(request: BuildImageRequest, name: str, asked: str) -> ImageSpec | None:
    """The image's spec; None for a request that is not about such a medium."""
    if request.location:
        return _installer_spec(request, name, asked)
    if request.cmdline or request.kernel or request.initrd:
        raise CorralError("invalid-argument", asked, "there is no location to go with it", "give a location")
    if not request.files and not request.volume_id:
        return None
    if not request.files or not request.volume_id or request.path or request.catalogue:
        raise CorralError(
            "invalid-argument", asked, "a medium of files has files and a volume_id, and nothing else", "give both"
        )
    return ImageSpec(catalogue=name, source=ImageSource.IMPORT, format="iso")


def _installer_spec(request: BuildImageRequest, name: str, asked: str) -> ImageSpec:
    if request.path or request.catalogue or request.volume_id:
        raise CorralError("invalid-argument", asked, "it has a location and another origin", "give one of the two")
    if bool(request.kernel) != bool(request.initrd):
        raise CorralError("invalid-argument", asked, "kernel and initrd go together", "name both, or neither")
    scheme = urlsplit(request.location).scheme
    if scheme not in _SCHEMES or (not scheme and not Path(request.location).is_absolute()):
        raise CorralError(
            "invalid-argument",
            asked,
            f"{request.location[:200]!r} is no absolute path and no https URL",
            "a directory, an ISO file, or https://…",
        )
    if not scheme and not Path(request.location).exists():
        raise CorralError("invalid-argument", asked, f"there is no {request.location[:200]}", "check the path")
    grub_words(request.cmdline)
    return ImageSpec(
        catalogue=name,
        source=ImageSource.INSTALLER,
        format="iso",
        path=request.location,
        kernel=request.kernel,
        initrd=request.initrd,
        cmdline=request.cmdline,
    )


async def stage_files(context: Context, request: BuildImageRequest, spec: ImageSpec) -> ImageSpec:
    """Put the request's files where the library takes them from. They are kept out of the image's document: passwords
    may be in them."""
    contents = {name: text.encode() for name, text in request.files.items()}
    if spec.source is ImageSource.INSTALLER:
        staged = build_archive(regular(name, content, _FILE_MODE) for name, content in contents.items())
    else:
        staged = build_seed(contents, request.volume_id)
    return spec.model_copy(update={"staged": str(await context.library.staging.keep(staged))})
