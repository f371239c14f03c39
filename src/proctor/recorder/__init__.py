"""The recorder: the WebDriver endpoint that an attempt's test talks to; it forwards to the hub and records."""

from proctor.recorder.proxy import Endpoint, Recorder

__all__ = ["Endpoint", "Recorder"]
