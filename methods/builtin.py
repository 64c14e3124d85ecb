"""The built-in methods and their variants, as data: nothing is imported until one is used."""

from __future__ import annotations

from typing import Any

from ddbench.benchmark.core.registry import Entry


def _variant(name: str, summary: str, tag: str = "ablation", of: str = "dmgd", **overrides: Any) -> Entry:
    return Entry(name, summary=summary, tags=(tag, "training-free"), variant_of=of, overrides=overrides)


def _on_tuned_priors(*methods: str) -> list[Entry]:
    """Each method on the prior that `minimax` tunes, and on the one of its small budget."""
    return [
        Entry(
            f"{method}-{tuner}",
            summary=f"{method} on the prior that {tuner} tunes",
            tags=("ablation", "small", "fine-tunes") if tuner.endswith("-small") else ("main", "fine-tunes"),
            variant_of=method,
            prior_tuned_by=tuner,
        )
        for method in methods
        for tuner in ("minimax", "minimax-small")
    ]


def _small_classifier(name: str, title: str) -> Entry:
    """A method with the classifier of `cao2-small`, which the cells of all of them then share."""
    return Entry(
        f"{name}-small",
        summary=f"{title}'s small budget: a smaller classifier trained for 20 epochs",
        tags=("ablation", "small", "needs-classifier"),
        variant_of=name,
        overrides=SMALL_CLASSIFIER,
    )


def _inversion(name: str, summary: str, **overrides: Any) -> Entry:
    return Entry(name, summary=summary, tags=("main", "needs-classifier"), variant_of="sre2l", overrides=overrides)


DENSENET, MOBILENET = "timm:densenet121", "timm:mobilenetv2_100"
GENERALISED: dict[str, Any] = {"order": "within", "convolution_statistics": True}
"""G-VBSM, and EDC after it."""
FOUR = f"resnet18_bn+{MOBILENET}+timm:efficientnet_b0+shufflenet_v2_x0_5"
FADRM: dict[str, Any] = {"start": "collages", "steps": 2000, "stages": 4, "stage_scale": 25 / 28}
SMALL_CLASSIFIER: dict[str, Any] = {"network": "convnet3", "epochs": 20}
PLAIN: dict[str, Any] = {"semantic_matching": False, "distribution_matching": False}

ENTRIES: list[Entry] = [
    Entry("random", "ddbench.methods.selection:RandomSelection", "random real images", ("main", "selection")),
    Entry(
        "random-first",
        "ddbench.methods.selection:FirstImages",
        "the first real images by sorted file name (what papers' loaders call random)",
        ("reference", "selection"),
    ),
    Entry(
        "full",
        "ddbench.methods.selection:FullDataset",
        "the whole training set, whatever the IPC: the upper reference",
        ("main", "reference", "selection"),
    ),
    Entry(
        "dmgd",
        "ddbench.methods.dmgd.method:DMGD",
        "diffusion prior guided by semantic and distribution matching (CVPR 2026)",
        ("main", "training-free"),
    ),
    _variant("dit", "the plain prior with classifier-free guidance", "main", **PLAIN),
    _variant("dit-cfg1", "the plain prior without any guidance", **PLAIN, cfg_scale=1.0),
    Entry(
        "flow",
        "ddbench.methods.flow:Flow",
        "the plain prior along the path from noise to data: SiT's SDE, or the probability-flow ODE",
        ("ablation", "training-free"),
    ),
    _variant("dmgd-sm", "semantic matching only (Table 3)", distribution_matching=False),
    _variant("dmgd-dm", "distribution matching only, hard label (Tables 3, 5)", semantic_matching=False),
    _variant("dmgd-soft-only", "dynamic label without noise (Table 5)", label_noise_weight=0.0),
    _variant("dmgd-noise-only", "dynamic label without another class (Table 5)", label_mix_weight=0.0),
    _variant("dmgd-mean", "the class mean as support (Table 6)", support="mean"),
    _variant("dmgd-density", "a density sample of the class as support (Table 6)", support="density"),
    _variant("dmgd-no-exploration", "the class's own label above t = 900 (Table 7)", exploration=False),
    _variant("dmgd-no-refinement", "dynamic label down to t = 0 (Table 7)", label_t_lower=0),
    _variant("dmgd-dm-always", "distribution matching at all 50 steps (Table 7)", ot_window_first=0, ot_window_last=49),
    _variant("dmgd-joint", "all images of a class optimised jointly", greedy=False),
    _variant(
        "dmgd-paper",
        "an interpretation of the paper's formulas where the released program differs; not the published runs",
        label_weights="linear",
        ot_gradient="envelope",
        ot_sigma=False,
    ),
    Entry(
        "dit-tuned",
        "ddbench.methods.dit:TunedDiT",
        "the plain prior at the CFG scale that is best on the dataset's validation part",
        ("main", "training-free"),
    ),
    Entry(
        "mgd3",
        "ddbench.methods.mgd3.method:MGD3",
        "diffusion prior guided to k-means modes of the real latents (ICML 2025)",
        ("main", "training-free"),
    ),
    Entry(
        "manifoldgd",
        "ddbench.methods.manifoldgd.method:ManifoldGD",
        "guidance to modes of a bisecting tree, and along the normal of the data near them (CVPR 2026)",
        ("main", "training-free"),
    ),
    Entry(
        "coda",
        "ddbench.methods.coda.method:CoDA",
        "a text-to-image prior pulled towards representatives of each class, its real images' densest places",
        ("main", "training-free"),
    ),
    Entry(
        "coda-real",
        "ddbench.methods.coda.method:Representatives",
        "CoDA's representatives themselves, real images: what its released script trains on",
        ("ablation", "training-free"),
    ),
    _variant("mgd3-no-stop", "mode guidance to the end (Table 5)", of="mgd3", stop_step=0),
    _variant("mgd3-nearest", "the real images nearest to the centroids as modes (Table 7)", of="mgd3", modes="nearest"),
    _variant("mgd3-random", "random real images as modes (Table 7)", of="mgd3", modes="random"),
    Entry(
        "mgd3-modes",
        "ddbench.methods.mgd3.method:ModesAlone",
        "the real images nearest to MGD3's modes, without its sampler (Table 5)",
        ("ablation", "training-free"),
    ),
    Entry(
        "d4m",
        "ddbench.methods.d4m.method:D4M",
        "k-means prototypes of the real latents, noised and denoised (CVPR 2024, class-conditional form)",
        ("main", "training-free"),
    ),
    _variant("d4m-mini-batch", "prototypes by mini-batch k-means, as D4M's program", of="d4m", clustering="mini-batch"),
    Entry(
        "minimax",
        "ddbench.methods.minimax.method:Minimax",
        "the prior fine-tuned with minimax criteria on two memories, then sampled (CVPR 2024)",
        ("main", "fine-tunes"),
    ),
    Entry(
        "minimax-small",
        summary="Minimax's small budget: 400 steps in place of 12,000, the same share of the untuned weights (30 %)",
        tags=("ablation", "small", "fine-tunes"),
        variant_of="minimax",
        overrides={"tuning_steps": 400, "ema": 0.997},
    ),
    *_on_tuned_priors("dmgd", "mgd3"),
    Entry(
        "ims3-im",
        "ddbench.methods.ims3.tuning:MatchedTuning",
        "Minimax's tuning with inversion matching beside its criteria: IMS3 without its choice among groups",
        ("ablation", "fine-tunes"),
    ),
    Entry(
        "ims3-im-small",
        summary="ims3-im's small budget: 400 steps in place of 8,000, the same share of the untuned weights (45 %)",
        tags=("ablation", "small", "fine-tunes"),
        variant_of="ims3-im",
        overrides={"tuning_steps": 400, "ema": 0.998},
    ),
    Entry(
        "ims3-s3",
        "ddbench.methods.ims3.method:SubgroupSampling",
        "of several groups of samples one a class, near the real images and far from other classes: IMS3 untuned",
        ("ablation", "needs-classifier"),
    ),
    Entry(
        "ims3",
        summary="groups of samples of a prior tuned with inversion matching, one of each class chosen (CVPR 2026)",
        tags=("main", "fine-tunes"),
        variant_of="ims3-s3",
        prior_tuned_by="ims3-im",
    ),
    Entry(
        "ims3-small",
        summary="IMS3's small budget: the prior of ims3-im-small, a smaller classifier trained for 20 epochs",
        tags=("ablation", "small", "fine-tunes"),
        variant_of="ims3-s3",
        overrides=SMALL_CLASSIFIER,
        prior_tuned_by="ims3-im-small",
    ),
    Entry(
        "d3hr",
        "ddbench.methods.d3hr.method:D3HR",
        "groups drawn from statistics of DDIM-inverted latents, denoised (ICML 2025)",
        ("main", "training-free"),
    ),
    Entry(
        "d3hr-small",
        summary="D3HR's small budget: 10,000 groups in place of 1,000,000, 64 real images of a class in place of all",
        tags=("ablation", "small", "training-free"),
        variant_of="d3hr",
        overrides={"groups": 10_000, "real_images": 64},
    ),
    _variant(
        "d3hr-program",
        "D3HR with the program's start step and skewness weight",
        of="d3hr",
        start_offset=1,
        skew_weight=0.1,
    ),
    Entry(
        "herding",
        "ddbench.methods.coresets:Herding",
        "real images whose features have the class's mean (IDC's coreset)",
        ("main", "needs-classifier"),
    ),
    _small_classifier("herding", "Herding"),
    Entry(
        "k-center",
        "ddbench.methods.coresets:KCenter",
        "real images, each farthest in features from those before",
        ("main", "needs-classifier"),
    ),
    _small_classifier("k-center", "k-center"),
    Entry(
        "el2n",
        "ddbench.methods.dynamics.method:EL2N",
        "real images that a classifier was most wrong about early in its training",
        ("main", "needs-classifier"),
    ),
    Entry(
        "el2n-easy",
        summary="EL2N's other end: those it was least wrong about",
        tags=("ablation", "needs-classifier"),
        variant_of="el2n",
        overrides={"keep": "lowest"},
    ),
    Entry(
        "forgetting",
        "ddbench.methods.dynamics.method:Forgetting",
        "real images that a classifier learnt and forgot most often",
        ("main", "needs-classifier"),
    ),
    Entry(
        "aum",
        "ddbench.methods.dynamics.method:AUM",
        "real images of least margin over a training (area under the margin)",
        ("main", "needs-classifier"),
    ),
    Entry(
        "ccs",
        "ddbench.methods.dynamics.method:CCS",
        "real images from every stratum of AUM but the hardest share (coverage-centric)",
        ("main", "needs-classifier"),
    ),
    Entry(
        "dm",
        "ddbench.methods.dm.method:DM",
        "pixels optimised until random networks embed them as the real images, on average (WACV 2023)",
        ("main", "training-free"),
    ),
    Entry(
        "dm-small",
        summary="DM's small budget: 200 steps in place of 20,000, 32 real images of a class in each in place of 256",
        tags=("ablation", "small", "training-free"),
        variant_of="dm",
        overrides={"iterations": 200, "real_batch": 32},
    ),
    Entry(
        "rded",
        "ddbench.methods.rded.method:RDED",
        "collages of the crops that a classifier is surest of (CVPR 2024)",
        ("main", "needs-classifier"),
    ),
    _small_classifier("rded", "RDED"),
    Entry(
        "igd",
        "ddbench.methods.igd.method:IGD",
        "diffusion prior guided by a surrogate's loss gradients and away from finished images (ICLR 2025)",
        ("main", "needs-classifier"),
    ),
    Entry(
        "igd-small",
        summary="IGD's small budget: a smaller surrogate trained for 5 epochs, looked at twice, by 50 real images",
        tags=("ablation", "small", "needs-classifier"),
        variant_of="igd",
        overrides={"network": "convnet3", "checkpoints": "1+5", "real_images": 50},
    ),
    Entry(
        "igd-minimax",
        summary="igd on the prior that minimax tunes, with the paper's k and γ for each dataset there",
        tags=("main", "fine-tunes"),
        variant_of="igd",
        overrides={"influence_scale": 10.0, "deviation_scale": "100"},
        prior_tuned_by="minimax",
    ),
    Entry(
        "igd-minimax-small",
        summary="igd-small on the prior that minimax-small tunes, with the paper's k and γ as igd-minimax",
        tags=("ablation", "small", "fine-tunes"),
        variant_of="igd",
        overrides={
            "network": "convnet3",
            "checkpoints": "1+5",
            "real_images": 50,
            "influence_scale": 10.0,
            "deviation_scale": "100",
        },
        prior_tuned_by="minimax-small",
    ),
    Entry(
        "cao2",
        "ddbench.methods.cao2.method:CaO2",
        "of a pool of samples those that a classifier is surest of, their latents refined (ICCV 2025)",
        ("main", "needs-classifier"),
    ),
    Entry(
        "cao2-program",
        summary="CaO2 with the program's raw input and mismatch of noise and time; not its classifier of 1000 classes",
        tags=("ablation", "needs-classifier"),
        variant_of="cao2",
        overrides={"classifier_input": "raw", "refine_time": "index"},
    ),
    Entry(
        "cao2-small",
        summary="CaO2's small budget: a pool of 2, 20 steps of refinement, a smaller classifier trained for 20 epochs",
        tags=("ablation", "small", "needs-classifier"),
        variant_of="cao2",
        overrides={**SMALL_CLASSIFIER, "pool": 2, "refine_steps": 20},
    ),
    Entry(
        "sre2l",
        "ddbench.methods.inversion.method:Inversion",
        "noise optimised to a classifier's labels and BatchNorm statistics (NeurIPS 2023)",
        ("main", "needs-classifier"),
    ),
    _inversion("sre2l-pp", "SRe2L from collages of real crops (SRe2L++)", start="collages"),
    _inversion("cda", "SRe2L with crops that begin with the whole image (CDA, TMLR 2024)", curriculum=True),
    _inversion(
        "delt",
        "real images of middling difficulty, those of a class joining the optimisation one after another (CVPR 2025)",
        start="median",
        order="within",
        curriculum=True,
        jitter=0.0,
        admissions=8,
    ),
    _inversion(
        "cv-dd",
        "collages optimised under two of five classifiers at a time, weighted by their worth (ICCV 2025)",
        start="collages",
        network=f"resnet18_bn+resnet50_bn+shufflenet_v2_x1_0+{MOBILENET}+{DENSENET}",
        committee="pairs",
        committee_scores="56.4+42.3+52.5+44.2+40.6",
    ),
    _inversion("fadrm", "collages optimised at two sides in turn, the start mixed in (NeurIPS 2025)", **FADRM),
    _inversion(
        "fadrm-plus",
        "FADRM with four classifiers in turn",
        **FADRM,
        network=f"resnet18_bn+{DENSENET}+shufflenet_v2_x1_0+{MOBILENET}",
    ),
    _inversion(
        "dwa",
        "real images, under a classifier whose weights are first moved up its loss (NeurIPS 2024)",
        start="real",
        steps=2000,
        variance_weight=2.0,
        ascent_steps=15,
    ),
    _inversion(
        "g-vbsm",
        "noise optimised under four classifiers in turn to statistics of BatchNorm and convolutions (CVPR 2024)",
        **GENERALISED,
        network=FOUR,
        batch=40,
        image_learning_rate=0.1,
        statistics_momentum=0.4,
        densification_weight=1.0,
    ),
    _inversion(
        "edc",
        "drawn collages optimised as in G-VBSM, to statistics of all images and of their classes (NeurIPS 2024)",
        **GENERALISED,
        network=f"{FOUR}+alexnet",
        start="collages-drawn",
        batch=20,
        steps=1000,
        image_learning_rate=0.05,
        min_scale=0.5,
        jitter=0.0,
        statistics_weight=0.1,
        statistics_momentum=0.8,
        class_statistics_share=0.5,
    ),
    _inversion(
        "lpld",
        "noise optimised a class at a time, to statistics of the class alone (NeurIPS 2024)",
        order="class",
        batch=200,
        class_statistics_share=1.0,
        class_statistics_momentum=0.1,
    ),
    _inversion(
        "wmdd",
        "noise optimised to its class's statistics and to a Wasserstein barycentre of its features (ICCV 2025)",
        order="classes",
        steps=2000,
        first_layer_weight=1.0,
        class_statistics_share=1.0,
        class_statistics_apart=True,
        class_statistics_view="whole",
        barycentre_weight=1.0,
    ),
    Entry(
        "external",
        "ddbench.methods.external.method:External",
        "another program, run in its own interpreter; its image folder is harvested (docs/external-recipes.md)",
        ("external",),
    ),
]

_INVERTS = "it inverts BatchNorm statistics as `sre2l` does, with a term that is not built:"
_NO_PROGRAM = "it is not built, and this project knows of no released program"
UNAVAILABLE = {
    "adaptivesampling": _NO_PROGRAM,
    "cim": "it matches features of crops of real images; its set is a float tensor, as 8-bit images another set",
    "cudd": f"{_INVERTS} an adversarial one against students of the images made before",
    "dap": "no released program is known (arXiv 2510.17421)",
    "ddoq": "it is not built (arXiv 2501.07681)",
    "ddvlcp": "a reprint of vlcp",
    "diver": _NO_PROGRAM,
    "evlf": "it fine-tunes DiT on latents fused with a text's, which is not built; its scripts have ImageIDC alone",
    "gift": "a loss for soft labels, no way to make images (arXiv 2405.14736)",
    "glad": "it learns latents of StyleGAN-XL by matching gradients, distributions or trajectories",
    "hald": "soft labels in turn with hard ones in a student's training, no way to make images (arXiv 2512.15647)",
    "hieramp": "it fine-tunes VAR, a prior of another kind than those here, under VAR's licence (arXiv 2603.06932)",
    "idc": "it learns multi-formed pixels by matching gradients of a network in training, for GPU days",
    "infer": f"{_INVERTS} one compensator for all classes, whose sums with real images are the set",
    "ldm": "plain sampling of a latent prior, of which no source says enough; dit on sd-1.5 is such sampling",
    "lgd": "no released program is known (arXiv 2604.00519)",
    "lpld x40": "the images are those of `lpld`, with a fortieth of their labels; no protocol prunes labels",
    "lpqld": "the images are those of `lpld`, with labels pruned and quantised; no protocol does so",
    "nrr-dd": _NO_PROGRAM,
    "ot-guided sampling": _NO_PROGRAM,
    "otg": _NO_PROGRAM,
    "pca": "no released program is known (arXiv 2502.06434)",
    "predd": "it noises other methods' images and denoises them with DiT; it is not built",
    "psm": _NO_PROGRAM,
    "rsm": _NO_PROGRAM,
    "scg": _NO_PROGRAM,
    "sd": "dit with --prior sd-1.5 is such sampling; with which prompts, steps and scale it was printed no source says",
    "teddy": "it is not built (arXiv 2410.07579)",
    "uag": "no program of its authors is known, and another's has choices of its own",
    "vlcp": "it fine-tunes Stable Diffusion on captions of a language model, which is not built",
}
"""Methods that papers name and that are not here, and why."""
