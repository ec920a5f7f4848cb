"""Real text as a deterministic stream of microbatches."""

from swarmrt.data.batches import Data, open_data
from swarmrt.data.codec import open_codec

__all__ = ["Data", "open_codec", "open_data"]
