"""What can be done in a generator's latent space: ways between latents, directions, and the way back from an image."""
