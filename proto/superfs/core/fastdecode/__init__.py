"""What FastDecode decides, without tensors and IO: when sequences start, and how many workers."""
