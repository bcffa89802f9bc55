"""The small models, what they paint, and how pictures are judged: architecture and weights only."""
