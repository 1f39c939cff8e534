"""Calibration: what a score says about two images showing the same person, learned from scores of known pairs.

A curve turns a score into a log-likelihood ratio; a prior turns that into a probability (Brummer and du Preez 2006,
"Application-independent evaluation of speaker detection").
"""
