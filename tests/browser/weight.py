"""What a page of the built book weighs, as it comes over a wire that packs text with gzip."""

import gzip

PARTS = ("document", "stylesheet", "script", "font", "image", "other")
PACKED = {"font", "image"}  # woff2, webp and png are sent as they are
LAZY = """() => [...document.querySelectorAll(".bd-article img[loading=lazy]")]
    .map(image => image.src)"""


def weigh(page, address: str) -> dict[str, int]:
    """Open a page in a fresh context; return the bytes of each of PARTS that it fetched.

    `lazy` are all figures that wait until they are near, whether they have been fetched or not.
    """
    requests = []
    # Those that have finished: another would be waited for.
    page.on("requestfinished", lambda request: requests.append(request))
    page.goto(address, wait_until="networkidle")
    lazy = set(page.evaluate(LAZY))
    weight = dict.fromkeys(PARTS, 0)
    for request in requests:
        kind = request.resource_type
        if request.url not in lazy and request.url.startswith("http"):  # a blob came in the page
            body = request.response().body()
            weight[kind if kind in PARTS else "other"] += packed(body, kind)
    return weight | {"lazy": sum(len(page.request.get(source).body()) for source in lazy)}


def packed(body: bytes, kind: str) -> int:
    return len(body) if kind in PACKED else len(gzip.compress(body, 6))
