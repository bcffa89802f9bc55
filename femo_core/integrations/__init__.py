"""femo_core in other hosts than ComfyUI: one package each, which imports its host and is imported by nothing else."""
