"""XML of S3 requests: read without declarations, in whatever encoding they hide."""

import pytest

from pdk.local.pachyderm.wire.s3_common import S3Error, parse_xml

BOMB = '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]><Delete>&b;</Delete>'


def test_a_body_is_read_without_its_namespace():
    assert (
        parse_xml(b'\xef\xbb\xbf<Delete xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Key>\xc3\xa9</Key></Delete>')[0].text == "\u00e9"
    )


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-7", "cp037"])
def test_declarations_are_refused_in_every_encoding(encoding):
    body = BOMB.replace("?>", f' encoding="{encoding}"?>', 1).encode(encoding)
    with pytest.raises(S3Error) as refused:
        parse_xml(body)
    assert refused.value.code == "MalformedXML"


@pytest.mark.parametrize("body", [b"", b"<", b"<a>", b"\xff\xfe<\0a\0/\0>\0", b"<a>" * 100_000])
def test_what_is_not_xml_is_refused(body):
    with pytest.raises(S3Error):
        parse_xml(body)
