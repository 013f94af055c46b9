"""Reports of earlier versions are rendered again."""

import pytest

from soar_tf.reports import html, markdown


@pytest.fixture
def report():
    """A report as it was before it said how its images were chosen."""
    attack = {"name": "pgd20", "norm": "linf", "epsilon": 0.1, "robust_accuracy": 0.5}
    return {
        "model": "m.keras",
        "dataset": "folder:photos",
        "split": "test",
        "n": 20,
        "seed": 0,
        "batch_size": 256,
        "clean_accuracy": 0.9,
        "worst_case_accuracy": 0.5,
        "worst_case_interval": [0.3, 0.7],
        "reliability": "not checked",
        "note": "An upper bound.",
        "attacks": [attack | {"seconds": 1.0, "images_per_second": 20.0, "config": {}}],
        "data": {"fingerprint": "f00d", "provenance": "Folder photos."},
        "environment": {
            "command": "soar-tf evaluate m.keras",
            "versions": {"python": "3.11"},
            "git_commit": None,
            "processor": "P",
            "cpu_count": 2,
            "devices": ["CPU"],
        },
    }


@pytest.mark.parametrize("render", [markdown, html])
def test_a_report_without_the_sample_is_rendered(render, report):
    old = render(report)
    assert "20 images, fingerprint f00d. Folder photos." in old
    assert render(report | {"data": report["data"] | {"sample": "all"}}) == old
    sampled = render(report | {"data": report["data"] | {"sample": "20 of 90, sampled by class"}})
    assert "20 images (20 of 90, sampled by class), fingerprint f00d." in sampled
