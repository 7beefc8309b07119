"""What the gallery costs a default `fit`: the seconds in it against all others, in one run.

    python -m tests.performance.gallery_overhead [KEY=VALUE ...]

Both are timed inside the same run, because two runs of minutes differ by more than a gallery costs.
"""

import sys
import time

import mgpo
from mgpo.callbacks import GroundingGallery


def main() -> None:
    spent: list[float] = []
    look = GroundingGallery.look

    def timed(self: GroundingGallery, *arguments: object) -> None:
        began = time.perf_counter()
        look(self, *arguments)
        spent.append(time.perf_counter() - began)

    GroundingGallery.look = timed
    began = time.perf_counter()
    run = mgpo.fit("mgpo", dict(argument.split("=", 1) for argument in sys.argv[1:]))
    others = time.perf_counter() - began - sum(spent)
    looks = [seconds for seconds in spent if seconds > 0.01]  # the others had been taken at that step before
    print(f"{run}: {len(looks)} looks, {sum(spent):.2f} s (longest {max(spent):.2f} s), all else {others:.1f} s")
    print(f"gallery / all else = {sum(spent) / others:.2%}")


if __name__ == "__main__":
    main()
