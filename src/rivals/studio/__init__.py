"""The web page: plain functions make what it shows, Gradio only lays it out."""
