"""A client: its network, what it shared, and what is known of it."""

from tinyleak.client.local import LocalSteps
from tinyleak.client.simulated import Outcome, Victim, judge, share, simulate

__all__ = ["LocalSteps", "Outcome", "Victim", "judge", "share", "simulate"]
