"""Starts LocalStack on the Python at hand: it asks for what uuid5 has since Python 3.12, names that are bytes."""
import sys
import uuid

import common

if sys.version_info < (3, 12):
    import hashlib

    def uuid5(namespace, name):
        name = name.encode() if isinstance(name, str) else name
        digest = hashlib.sha1(namespace.bytes + name, usedforsecurity=False).digest()
        return uuid.UUID(bytes=digest[:16], version=5)

    uuid.uuid5 = uuid5

from localstack.runtime.main import main

if __name__ == "__main__":
    common.end_with_stdin()
    main()
