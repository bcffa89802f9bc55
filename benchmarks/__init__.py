"""What is measured, and how: a file for each question. `python -m benchmarks.demo` from the root; see the Makefile."""
