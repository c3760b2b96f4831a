"""Everything is in setup.cfg; this adds the two files beside the package that wake it when LLaVA-NeXT is imported.

``zz_tam_plugin.pth`` (its name must sort after those of editable installs) imports ``_tam_plugin_boot``, a copy of
``patches/boot.py``. Both go into wheels and into editable installs.
"""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.editable_wheel import editable_wheel

BESIDE = {
    "zz_tam_plugin.pth": "import _tam_plugin_boot\n",
    "_tam_plugin_boot.py": (Path(__file__).parent / "patches" / "boot.py").read_text(encoding="utf-8"),
}


class BuildPy(build_py):
    """Writes the two files into the root of a wheel."""

    def run(self):
        super().run()
        if not self.editable_mode:
            for name, text in BESIDE.items():
                (Path(self.build_lib) / name).write_text(text, encoding="utf-8")

    def get_outputs(self, *args, **kwargs):
        return [*super().get_outputs(*args, **kwargs), *(str(Path(self.build_lib) / name) for name in BESIDE)]


class EditableWheel(editable_wheel):
    """Writes the two files into an editable wheel, after whatever strategy setuptools chose."""

    def _select_strategy(self, *args, **kwargs):
        return _WithFiles(super()._select_strategy(*args, **kwargs))


class _WithFiles:
    def __init__(self, strategy):
        self.strategy = strategy

    def __enter__(self):
        self.strategy.__enter__()
        return self

    def __exit__(self, *error):
        return self.strategy.__exit__(*error)

    def __call__(self, wheel, *args, **kwargs):
        self.strategy(wheel, *args, **kwargs)
        for name, text in BESIDE.items():
            wheel.writestr(name, text)


setup(cmdclass={"build_py": BuildPy, "editable_wheel": EditableWheel})
