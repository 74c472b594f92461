"""What ``TINKER_LOG`` asks for: the messages of this package, and every HTTP request.

Without it, nothing is set up but one thing: the HTTP client's line per request is kept out of logs
that an application sets up for itself, because it shows the service's back-pressure as errors.
"""

from __future__ import annotations

import logging

from tinker_ray import config

FORMAT = "[%(asctime)s - %(name)s:%(lineno)d - %(levelname)s] %(message)s"
DATE_FORMAT = "%Y-%m-%d %H:%M:%S"
_REQUESTS = "httpx"
_OURS = ("tinker_ray", "actors")


def start_log() -> None:
    """Log as the environment says, from now on. Calling it again changes nothing."""
    level = config.log_level()
    requests = logging.getLogger(_REQUESTS)
    if level is None:
        if requests.level == logging.NOTSET:
            requests.setLevel(logging.WARNING)
        return
    logging.basicConfig(format=FORMAT, datefmt=DATE_FORMAT)  # unless the application did it
    for name in (*_OURS, _REQUESTS):
        logging.getLogger(name).setLevel(level)
