"""Which names a submission and a tenant's inbox may have, and how any other name is shown and filed."""

import hashlib
import os
import re
from typing import Final

from ss_pipeline.jobs.documents import is_safe_segment

TENANT_MARK: Final = "@"
"""`inbox/@<tenant>/` is the inbox of a tenant other than the default one."""

_UNFIT: Final = re.compile(r"[\x00-\x1f\x7f-\x9f/\\]")


def is_usable_name(name: str) -> bool:
    """Whether a submission's folder name can be a folder name of ours as it is."""
    return is_safe_segment(name) and not name.startswith((".", TENANT_MARK))


def label_of(name: str) -> str:
    """The name itself where it is usable, else one close to it that is, ending in a hash of the original bytes."""
    if is_usable_name(name):
        return name
    raw = os.fsencode(name)
    text = _UNFIT.sub("_", raw.decode("utf-8", "replace")).lstrip(".~" + TENANT_MARK)
    short = text.encode()[:150].decode("utf-8", "ignore")
    return f"{short or 'unnamed'}-{hashlib.sha256(raw).hexdigest()[:8]}"
