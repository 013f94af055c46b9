"""Reports of earlier versions are rendered again."""

import pytest

from soar_tf.reports import html, markdown


@pytest.fixture
def report(stored_report):
    """A report as it was before it said how its images were chosen."""
    data = {"fingerprint": "f00d", "provenance": "Folder photos."}
    return stored_report | {"dataset": "folder:photos", "data": data}


@pytest.mark.parametrize("render", [markdown, html])
def test_a_report_without_the_sample_is_rendered(render, report):
    old = render(report)
    assert "20 images, fingerprint f00d. Folder photos." in old
    assert render(report | {"data": report["data"] | {"sample": "all"}}) == old
    sampled = render(report | {"data": report["data"] | {"sample": "20 of 90, sampled by class"}})
    assert "20 images (20 of 90, sampled by class), fingerprint f00d." in sampled
