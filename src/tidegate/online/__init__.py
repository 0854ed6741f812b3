"""Learning online: a net that predicts each step of a stream and then learns from it, in memory that stays bounded."""

from tidegate.online.events import BackedOff, Drifted, Event, Forgotten, Listener, Refused
from tidegate.online.judge import Judge
from tidegate.online.learner import OnlineLearner

__all__ = ["BackedOff", "Drifted", "Event", "Forgotten", "Judge", "Listener", "OnlineLearner", "Refused"]
