"""What callers hold of the actors: every method written out, every call ends, our own errors only."""

from actors.handles.checkpoint import CheckpointHandle
from actors.handles.remote import Patience, RemoteActor
from actors.handles.rollout import RolloutHandle
from actors.handles.sampler import SamplerPoolHandle
from actors.handles.session import SessionHandle
from actors.handles.training import TrainingHandle

__all__ = [
    "CheckpointHandle",
    "Patience",
    "RemoteActor",
    "RolloutHandle",
    "SamplerPoolHandle",
    "SessionHandle",
    "TrainingHandle",
]
