"""What is deployed where functions run: the worker's packages, and the files a cloud builds them from."""
