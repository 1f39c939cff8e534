"""Data sets: taken in, read by a job, shown, and handed to training and evaluation."""
