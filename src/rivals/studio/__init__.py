"""The page to watch and play with: what it shows is made by plain functions, and Gradio only lays it out."""
