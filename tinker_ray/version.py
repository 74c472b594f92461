"""The version of the package, and the release of the upstream SDK that it stands in for."""

__version__ = "0.1.0"

SDK_VERSION = "0.38.0"
"""The newest upstream release whose calls are made here: what services are told as the SDK's
version, because they decide by it what a client can read. The user agent says who we are."""
