"""The paper's published results (arXiv:2004.01832): means and standard deviations, in percent.

Table numbers and values are the paper's; rows are this package's names of the networks, columns
those of the measurements. Nothing here was measured by this project.
"""


def _rows(columns, **rows):
    return {
        name.replace("_", "-"): dict(zip(columns, cells, strict=True))
        for name, cells in rows.items()
    }


TABLES = {
    "table1": _rows(
        ("clean", "fgsm", "pgd7", "pgd20"),
        standard=((86.33, 0.42), (22.09, 0.45), (1.26, 0.16), (0.39, 0.12)),
        adv7=((70.71, 0.01), (42.37, 0.27), (38.52, 0.23), (36.03, 0.16)),
        adv1_scratch=((83.35, 0.19), (27.84, 0.12), (17.55, 0.35), (13.14, 0.25)),
        adv1_pretrain=((84.23, 0.17), (23.13, 0.32), (12.22, 0.16), (8.11, 0.06)),
        soar=((81.73, 0.12), (47.77, 0.29), (39.15, 0.15), (32.83, 0.15)),
    ),
    "table2": _rows(
        ("20/255", "40/255", "60/255"),
        standard=((60.2, 0.1), (33.7, 0.1), (18.1, 0.3)),
        adv7=((68.3, 0.1), (65.6, 0.2), (62.9, 0.2)),
        soar=((76.8, 0.1), (71.3, 0.1), (65.8, 0.0)),
    ),
    "table3": _rows(
        ("cnn-source", "resnet18"),
        standard=((18.1, 0.6), (63.7, 0.9)),
        adv7=((68.3, 0.1), (69.9, 0.1)),
        soar=((72.6, 1.0), (79.8, 0.2)),
    ),
    "table4": _rows(
        ("clean", "pgd20", "cnn-source", "resnet18"),
        soar_zero=((84.28, 0.32), (71.09, 0.93), (15.10, 9.83), (60.85, 1.16)),
        soar_random=((83.85, 0.51), (73.64, 0.24), (20.97, 12.46), (69.71, 0.60)),
        soar=((81.73, 0.12), (32.83, 0.15), (72.62, 0.95), (79.79, 0.16)),
    ),
    "table5": _rows(
        ("zero", "random", "pgd1"),
        standard=((94.86, 0.16), (94.18, 0.15), (94.72, 0.28)),
        adv7=((53.81, 0.13), (53.63, 0.14), (53.81, 0.12)),
        adv1_scratch=((85.72, 0.19), (85.61, 0.17), (85.72, 0.14)),
        adv1_pretrain=((87.46, 0.05), (87.32, 0.04), (87.46, 0.07)),
        soar_zero=((99.63, 0.03), (99.61, 0.03), (99.82, 0.00)),
        soar_random=((99.61, 0.02), (99.57, 0.04), (99.83, 0.01)),
        soar=((93.85, 0.03), (93.80, 0.02), (93.31, 0.03)),
    ),
    "table6": _rows(
        ("weak", "medium", "strong"),
        standard=((83.07, 0.09), (61.19, 1.04), (35.89, 0.64)),
        adv7=((69.87, 0.24), (60.60, 0.13), (32.51, 0.39)),
        soar=((80.51, 0.16), (68.42, 0.47), (38.04, 0.44)),
    ),
    "table7": _rows(
        ("0.05", "0.1", "0.15"),
        standard=((69.99, 1.06), (36.42, 2.71), (20.63, 1.76)),
        adv7=((69.70, 0.25), (65.52, 0.25), (58.80, 0.36)),
        soar=((79.98, 0.26), (71.34, 1.08), (56.81, 2.61)),
    ),
}


def _signature(row):
    """The values for a SOAR network in tables 1, 4 and 5."""
    cells = {**TABLES["table1"].get(row, {}), **TABLES["table4"][row]}
    return {**cells, "zero": TABLES["table5"][row]["zero"]}


# Networks that could be the paper's SOAR, each with the paper's values for its initialisation.
TABLES["readings"] = {
    "reading-example": _signature("soar"),
    "reading-mean": _signature("soar"),
    "reading-sum": _signature("soar"),
    "reading-example-zero": _signature("soar-zero"),
    "reading-mean-zero": _signature("soar-zero"),
}

# The authors' code standardises each image: the values are theirs for both normalisations here.
_STANDARD = {**TABLES["table1"]["standard"], "zero": TABLES["table5"]["standard"]["zero"]}
_SOAR = {**TABLES["table1"]["soar"], "zero": TABLES["table5"]["soar"]["zero"]}
TABLES["normalization"] = {
    **dict.fromkeys(("standard", "standard-fixed"), _STANDARD),
    **dict.fromkeys(("soar", "soar-fixed"), _SOAR),
}
