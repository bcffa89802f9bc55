"""What is sampled and how, without ComfyUI: subjects, solvers, forecasting, recordings, distances of pictures."""
