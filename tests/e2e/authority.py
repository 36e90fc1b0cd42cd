"""An authority of the tests' own, and certificates by it."""

from __future__ import annotations

import subprocess
from pathlib import Path


class Authority:
    """Certificates by one authority, of which the file is `ca.pem`: one for each name, which it is the certificate of."""

    def __init__(self, folder: Path, names: dict[str, str]):
        """`names` are those of the files, and who each is for: `DNS:` or `IP:` and a name."""
        self.folder = folder
        self._openssl("req", "-x509", *self._new_key("ca"), "-subj", "/CN=authority", "-days", "1", "-out", self.path("ca.pem"))
        for name, who in names.items():
            request, extensions = self.path(f"{name}.csr"), folder / f"{name}.ext"
            extensions.write_text(f"subjectAltName={who}\n")
            self._openssl("req", *self._new_key(name), "-subj", f"/CN={name}", "-out", request)
            self._openssl(
                "x509", "-req", "-in", request, "-CA", self.path("ca.pem"), "-CAkey", self.path("ca.key"), "-CAcreateserial",
                "-days", "1", "-extfile", str(extensions), "-out", self.path(f"{name}.pem"),
            )  # fmt: skip

    def path(self, name: str) -> str:
        """Where one of the files is."""
        return str(self.folder / name)

    def _new_key(self, name: str) -> list[str]:
        return ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", self.path(f"{name}.key")]

    @staticmethod
    def _openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True)
