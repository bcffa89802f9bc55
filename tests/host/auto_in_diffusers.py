"""The tiny Flux under enable_auto in diffusers, for test_one_profile.py: `auto_in_diffusers.py OWN THEIRS`.

Once to make the profile OWN, once by ComfyUI's, THEIRS, and prints what the report of that says.
"""

from __future__ import annotations

import sys

from hosts_agree import JOB

from benchmarks.sampling.subjects import TinyFlux

STEPS = 20


def main() -> None:
    from benchmarks.engines.pipelines import Pipeline  # not where a test imports this file
    from femo_core.integrations.diffusers import enable_auto, last_report

    pipeline = Pipeline(TinyFlux())
    for path in sys.argv[1:]:
        enable_auto(pipeline.pipe.transformer, scheduler=pipeline.pipe.scheduler, profile=path, quality=2.0)
        pipeline._flux(JOB, STEPS)
    report = last_report(pipeline.pipe.transformer)
    print(report.settings["learned"], report.network_runs)


if __name__ == "__main__":
    main()
