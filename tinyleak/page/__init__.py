"""The live page: a drawing is shared as a gradient, and comes back out of it, in a browser.

`runtime.js` replays what `Program.export` writes; `lbfgs.js` is the package's own descent. Neither
knows any network: the page is made of traced programs.
"""

from tinyleak.page.build import write_page

__all__ = ["write_page"]
