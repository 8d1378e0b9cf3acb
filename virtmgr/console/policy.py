"""The Content-Security-Policy: nothing but one's own files, and streams on one's own port."""

from __future__ import annotations


def policy(*, inline_styles: bool = False) -> str:
    """The header's value.

    :param inline_styles: for a page whose script writes style elements.
    """
    styles = "'self' 'unsafe-inline'" if inline_styles else "'self'"
    return (
        f"default-src 'none'; script-src 'self'; style-src {styles}; img-src 'self' data: blob:; "
        "font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    )
