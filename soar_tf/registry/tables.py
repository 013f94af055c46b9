"""All registered names. A new object is one line here; nothing is imported before it is used."""

from soar_tf.registry.registry import Registry, function_of, instance_of, subclass_of

METHODS = Registry(
    "methods",
    "method",
    {
        "standard": "soar_tf.methods.standard:Standard",
        "soar": "soar_tf.methods.soar:SOAR",
        "adversarial": "soar_tf.methods.adversarial:Adversarial",
        "fast": "soar_tf.methods.fast:Fast",
        "n-fgsm": "soar_tf.methods.n_fgsm:NFGSM",
        "gradalign": "soar_tf.methods.gradalign:GradAlign",
        "elle": "soar_tf.methods.elle:ELLE",
        "qub": "soar_tf.methods.qub:QUB",
        "trades": "soar_tf.methods.trades:TRADES",
        "ikl": "soar_tf.methods.ikl:IKL",
        "mart": "soar_tf.methods.mart:MART",
        "cure": "soar_tf.methods.cure:CURE",
        "llr": "soar_tf.methods.llr:LLR",
        "gradient-norm": "soar_tf.methods.gradient_norm:GradientNorm",
        "jacobian": "soar_tf.methods.jacobian:Jacobian",
        "sum": "soar_tf.methods.sum:Sum",
    },
    accepts=subclass_of("soar_tf.methods.method:Method"),
)

ATTACKS = Registry(
    "attacks",
    "attack",
    {
        "fgsm": "soar_tf.attacks.pgd:FGSM",
        "bim": "soar_tf.attacks.pgd:BIM",
        "pgd": "soar_tf.attacks.pgd:PGD",
        "mifgsm": "soar_tf.attacks.mifgsm:MIFGSM",
        "apgd": "soar_tf.attacks.apgd:APGD",
        "apgd-t": "soar_tf.attacks.apgd:APGDT",
        "fab": "soar_tf.attacks.fab:FAB",
        "fab-t": "soar_tf.attacks.fab:FABT",
        "square": "soar_tf.attacks.square:Square",
        "deepfool": "soar_tf.attacks.deepfool:DeepFool",
        "ddn": "soar_tf.attacks.ddn:DDN",
        "fmn": "soar_tf.attacks.fmn:FMN",
        "cw": "soar_tf.attacks.carlini_wagner:CarliniWagner",
        "lbfgs": "soar_tf.attacks.lbfgs:LBFGS",
        "spatial": "soar_tf.attacks.transforms:Spatial",
        "gaussian-noise": "soar_tf.attacks.transforms:GaussianNoise",
        "autoattack": "soar_tf.attacks.autoattack:AutoAttack",
    },
    accepts=subclass_of("soar_tf.attacks.attack:Attack"),
    # `soar_tf.attacks.get` knows names with numbers, too.
    examples=("pgd7", "pgd20", "l2pgd100", "apgd-ce", "apgd-dlr"),
)

NETWORKS = Registry(
    "networks",
    "network",
    {
        "cnn2": "soar_tf.models.networks:cnn2",
        "cnn4": "soar_tf.models.networks:cnn4",
        "mlp": "soar_tf.models.networks:mlp",
        "resnet18": "soar_tf.models.residual_networks:resnet18",
        "preact_resnet18": "soar_tf.models.residual_networks:preact_resnet18",
        "wide_resnet": "soar_tf.models.residual_networks:wide_resnet",
    },
    accepts=function_of("input_shape", "num_classes"),
)

# A name with a colon stands for all names that begin like it: `npz:mine.npz`.
DATASETS = Registry(
    "datasets",
    "dataset",
    {
        "digits": "soar_tf.datasets.digits:DIGITS",
        "cifar10": "soar_tf.datasets.tfds_sets:CIFAR10",
        "cifar100": "soar_tf.datasets.tfds_sets:CIFAR100",
        "mnist": "soar_tf.datasets.tfds_sets:MNIST",
        "fashion_mnist": "soar_tf.datasets.tfds_sets:FASHION_MNIST",
        "svhn_cropped": "soar_tf.datasets.tfds_sets:SVHN_CROPPED",
        "tfds:NAME": "soar_tf.datasets.tfds_sets:TFDS",
        "npz:FILE": "soar_tf.datasets.npz:NPZ",
        "folder:DIR": "soar_tf.datasets.folder:FOLDER",
    },
    accepts=instance_of("soar_tf.datasets.source:Source"),
)

CORRUPTIONS = Registry(
    "corruptions",
    "corruption",
    {
        "gaussian-noise": "soar_tf.corruptions.noise:gaussian_noise",
        "shot-noise": "soar_tf.corruptions.noise:shot_noise",
        "impulse-noise": "soar_tf.corruptions.noise:impulse_noise",
        "speckle-noise": "soar_tf.corruptions.noise:speckle_noise",
        "defocus-blur": "soar_tf.corruptions.blur:defocus_blur",
        "gaussian-blur": "soar_tf.corruptions.blur:gaussian_blur",
        "brightness": "soar_tf.corruptions.colour:brightness",
        "contrast": "soar_tf.corruptions.colour:contrast",
        "saturate": "soar_tf.corruptions.colour:saturate",
        "elastic": "soar_tf.corruptions.elastic:elastic",
        "pixelate": "soar_tf.corruptions.digital:pixelate",
        "jpeg": "soar_tf.corruptions.digital:jpeg",
    },
    accepts=callable,
)

EXPORT_FORMATS = Registry(
    "export_formats",
    "export format",
    {
        "saved_model": "soar_tf.models.exports.saved_model_format:SavedModelFormat",
        "keras": "soar_tf.models.exports.keras_format:KerasFormat",
        "litert": "soar_tf.models.exports.litert_format:LiteRTFormat",
        "onnx": "soar_tf.models.exports.onnx_format:ONNXFormat",
    },
    accepts=subclass_of("soar_tf.models.exports.format:Format"),
)

# The plots of an evaluation's report: functions of the report.
PLOTS = Registry(
    "plots",
    "plot",
    {"accuracy-epsilon": "soar_tf.reports.report_plots:accuracy_epsilon"},
    accepts=callable,
)

PRESETS = Registry(
    "presets",
    "preset",
    {
        "robust": "soar_tf.runs.presets:ROBUST",
        "soar-per-example": "soar_tf.runs.presets:SOAR_PER_EXAMPLE",
        "soar-batch-mean": "soar_tf.runs.presets:SOAR_BATCH_MEAN",
    },
    accepts=instance_of("soar_tf.runs.presets:Preset"),
)
