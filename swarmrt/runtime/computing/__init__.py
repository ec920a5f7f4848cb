"""The computations of a stage, and the tensors on their way to and from the device."""
