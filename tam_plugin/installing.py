"""What to install where a package is missing or does not load: commands that work from any folder."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re

NO_TORCHVISION = (
    "torchvision {torchvision} does not fit torch {torch}: 'pip uninstall torchvision' (nothing here needs it), or "
    "install the torchvision of the same release and build as torch"
)
_DISTRIBUTIONS = {
    "cv2": "opencv-python-headless",
    "flash_attn": "flash-attn",
    "google": "protobuf",
    "lmms_eval": "lmms-eval",
    "PIL": "pillow",
    "yaml": "pyyaml",
}
"""Importable names of packages that the index knows by another name."""
_CUDA_LIBRARY = re.compile(r"lib(nvrtc|cudart|torch_cuda|c10_cuda|cublas|nvjpeg)\w*\.so")
_FFMPEG_LIBRARY = re.compile(r"lib(avutil|avcodec|avformat|avdevice|avfilter|swscale|swresample)\.so|FFmpeg")


def installed_version(package: str) -> str | None:
    """Version of a distribution, or None where it is not installed; the package is not imported."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def install_command(package: str, extra: str | None = None) -> str:
    """The command that brings ``package``: with all that ``extra`` lists, by names and bounds, if it is among them.

    The project is on no package index, so that ``pip install 'tam-plugin[extra]'`` would find nothing.
    """
    if package == "torchcodec":  # which release it must be, no range can say
        return torchcodec_remedy()
    name = _DISTRIBUTIONS.get(package, package)
    names = requirements_of(extra) if extra else []
    if not any(re.match(rf"{re.escape(name)}\b", listed) for listed in names):
        names = [name]
    return f"pip install {' '.join(repr(name) for name in names)}"


def requirements_of(extra: str) -> list[str]:
    """What ``extra`` adds, as the installed metadata has it; empty where the plugin is not installed."""
    try:
        listed = importlib.metadata.requires("tam-plugin") or []
    except importlib.metadata.PackageNotFoundError:
        return []
    pairs = [(requirement.strip(), marker) for requirement, _, marker in (line.partition(";") for line in listed)]
    return [requirement for requirement, marker in pairs if re.search(rf"""extra == ['"]{extra}['"]""", marker)]


def remedy_of(error: BaseException, package: str, reason: str) -> str:
    """What to do about a package that is installed but raised ``error`` when it was imported.

    Args:
        error: what importing it raised.
        package: its importable name.
        reason: what is said of the cause, by the error (:func:`~tam_plugin.errors.reason_of`) or in what was printed.
    """
    if "torchvision::" in reason or re.search(r"torchvision\S*: undefined symbol", reason):
        return NO_TORCHVISION.format(torchvision=installed_version("torchvision"), torch=installed_version("torch"))
    missing = missing_module(error)
    if missing is not None:
        return install_command(missing)
    if package == "torchcodec":
        return torchcodec_remedy(reason)
    if _CUDA_LIBRARY.search(reason):
        return f"this build of {package} needs CUDA's libraries, which are not here: install its build for the CPU"
    return f"pip install --force-reinstall --no-deps {package!r}"


def missing_module(error: BaseException | None) -> str | None:
    """The top-level module that was not found, anywhere in the chain of causes; None where none was."""
    while error is not None:
        if isinstance(error, ModuleNotFoundError) and error.name and importlib.util.find_spec(_top(error.name)) is None:
            return _top(error.name)
        error = error.__cause__ or error.__context__
    return None


def _top(module: str) -> str:
    return module.partition(".")[0]


def torchcodec_remedy(reason: str = "") -> str:
    """What makes torchcodec load beside the torch that is installed.

    Args:
        reason: why it does not load now; empty where it is not installed.
    """
    fitting = torchcodec_for(installed_version("torch") or "")
    if fitting is None:
        return "use backend 'decord' or 'pyav': torchcodec can be used from torch 2.9 on"
    install = f"pip install 'torchcodec=={fitting}.*'"
    if _CUDA_LIBRARY.search(reason):
        return f"this torchcodec is a build for CUDA and torch is not; {install}"
    if "undefined symbol" in reason:
        return f"this torchcodec was built for another torch; {install}"
    if reason and _FFMPEG_LIBRARY.search(reason):
        return "install FFmpeg 4 to 8 with its shared libraries (Debian: apt-get install ffmpeg)"
    return f"{install}, and FFmpeg 4 to 8 with its shared libraries (Debian: apt-get install ffmpeg)"


def torchcodec_for(torch_version: str) -> str | None:
    """Release of torchcodec that loads beside a torch, by torchcodec's own table; None where none of use does.

    From 0.14 on the wheels of the package index are builds for CUDA and load beside no other torch; 0.13 loads beside
    all builds from torch 2.11 on.
    """
    numbers = re.match(r"(\d+)\.(\d+)", torch_version)
    release = (int(numbers[1]), int(numbers[2])) if numbers else (0, 0)
    if release >= (2, 11):
        return "0.13"
    return {(2, 10): "0.10", (2, 9): "0.9"}.get(release)
