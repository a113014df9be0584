"""The server's own certificate authority, its certificate and the kubeconfig that trusts it."""

from __future__ import annotations

import base64
import ipaddress
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pdk.durable import write_whole

VALID = timedelta(days=3650)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs, key_cert_sign=signs, crl_sign=signs, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _builder(subject: str, issuer: str, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + VALID)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usable(authority: Path, certificate: Path, key: Path) -> bool:
    """Return whether the files are there and whole: a machine that went down may have left anything."""
    try:
        issuer, leaf = (x509.load_pem_x509_certificate(path.read_bytes()) for path in (authority, certificate))
        leaf.verify_directly_issued_by(issuer)
        own = serialization.load_pem_private_key(key.read_bytes(), None)
    except (OSError, ValueError, TypeError, InvalidSignature):
        return False
    return own.public_key() == leaf.public_key()


def ensure(home: Path, address: str) -> tuple[Path, Path, Path]:
    """Files of the authority's certificate, the server's certificate and its key; made once for an address.

    The authority's key is not kept: it signs this one certificate and is forgotten.
    """
    authority, certificate, key_file = home / "ca.pem", home / f"server-{address}.pem", home / f"server-{address}.key"
    if _usable(authority, certificate, key_file):
        return authority, certificate, key_file
    signer, own = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root = (
        _builder("pdk-ca", "pdk-ca", signer.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .sign(signer, hashes.SHA256())
    )
    addresses = {"127.0.0.1", address}
    names: list[x509.GeneralName] = [x509.DNSName("localhost"), *(x509.IPAddress(ipaddress.ip_address(a)) for a in sorted(addresses))]
    leaf = (
        _builder("pdk", "pdk-ca", own.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .sign(signer, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    write_whole(key_file, own.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    write_whole(certificate, leaf.public_bytes(pem))
    write_whole(authority, root.public_bytes(pem))
    return authority, certificate, key_file


def write_kubeconfig(path: Path, server: str, authority: Path, token: str) -> None:
    """A kubeconfig for `server`, readable by its owner alone."""
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "pdk",
        "clusters": [
            {"name": "pdk", "cluster": {"server": server, "certificate-authority-data": base64.b64encode(authority.read_bytes()).decode()}}
        ],
        "users": [{"name": "pdk", "user": {"token": token}}],
        "contexts": [{"name": "pdk", "context": {"cluster": "pdk", "user": "pdk", "namespace": "default"}}],
    }
    write_whole(path, json.dumps(content, indent=1) + "\n")
