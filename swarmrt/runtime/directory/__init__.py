"""The directory: records in hivemind's DHT, and who may write them."""
