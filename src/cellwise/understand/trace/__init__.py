"""Inside a trained network: states and gates over time, and which inputs a prediction depends on."""

from cellwise.understand.trace.connectivity import sensitivity
from cellwise.understand.trace.recording import LayerRecording, Recording, Signal, record

__all__ = ["LayerRecording", "Recording", "Signal", "record", "sensitivity"]
