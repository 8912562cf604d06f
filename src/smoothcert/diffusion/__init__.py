"""Noise schedules, prediction types and samplers of diffusion models, on the model's own scale.

Images are in [-1, 1] here, and sigma = sqrt((1 - abar) / abar) is the noise of z = x_t / sqrt(abar) on that
scale: twice the sigma of images in [0, 1]. ``schedule`` knows which time has which noise, ``prediction``
turns a network's output into an estimate of the clean image, ``samplers`` decide how often it is asked.
Only ``prediction`` and ``samplers`` need torch. May import protocols and errors.
"""
