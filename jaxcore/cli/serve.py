"""``jaxcore serve``."""

from typing import Annotated

import tyro

from jaxcore.cli.output import show
from jaxcore.cli.paths import RunPlace


def serve(
    weights: tyro.conf.Positional[tuple[RunPlace, ...]] = (),
    port: int = 7860,
    max_megabytes: Annotated[int, tyro.conf.arg(metavar="MB")] = 50,
    max_megapixels: Annotated[int, tyro.conf.arg(metavar="MP")] = 30,
    time_limit: Annotated[float, tyro.conf.arg(metavar="SECONDS")] = 300.0,
) -> None:
    """Restore photographs on a page in the browser, on this machine only.

    Drop a photograph, choose a network, compare before and after, download. The page is reached
    from this machine alone, nothing of it is fetched from elsewhere, and no file is reachable.

    Args:
      weights: run directories or weight files to choose among, beside the weights of jaxcore.
      port: of the page; 0 takes a free one.
      max_megabytes: size of a file.
      max_megapixels: size of a picture.
      time_limit: of one picture, in seconds.
    """
    from jaxcore.cli.web import Limits, Page

    limits = Limits(max_megabytes * 10**6, max_megapixels * 10**6, time_limit)
    with Page(weights, port, limits) as page:
        show(f"open {page.address} in a browser; Ctrl-C ends", flush=True)
        try:
            page.serve()
        except KeyboardInterrupt:
            show("ended")
