"""Networks that others trained, by whose features images are compared. Imports base only."""
