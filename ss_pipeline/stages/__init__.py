"""The pipeline as plain functions with ports as arguments; one module a stage. Stages do not import each other."""
