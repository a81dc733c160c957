"""Feature views: one documented SELECT each, shared by training and inference."""
