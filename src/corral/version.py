"""The version, in one place: the build, the API and `corral --version` read it from here."""

__version__ = "0.1.0"
