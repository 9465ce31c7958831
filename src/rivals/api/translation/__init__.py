"""``translate``: images to images of another kind, or to larger ones: training, judgement, application."""
