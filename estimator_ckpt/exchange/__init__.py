"""Files of tensors that other libraries read: safetensors and npz, written and read in a stream."""
