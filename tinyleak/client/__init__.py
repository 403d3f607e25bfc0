"""A client: its network, what it shared, how that is known; and the truth that it keeps."""

from tinyleak.client.certificates import ImageCertificates, certify_images
from tinyleak.client.client import Client
from tinyleak.client.facts import Fact
from tinyleak.client.local import LocalSteps
from tinyleak.client.loss import Loss
from tinyleak.client.notes import Notes
from tinyleak.client.outcome import RECOVERED_MSE, Outcome, Truth
from tinyleak.client.simulated import share, simulate
from tinyleak.client.writing import write_client

__all__ = [
    "RECOVERED_MSE",
    "Client",
    "Fact",
    "ImageCertificates",
    "LocalSteps",
    "Loss",
    "Notes",
    "Outcome",
    "Truth",
    "certify_images",
    "share",
    "simulate",
    "write_client",
]
