"""What figures show: an entry of FIGURES for each, with its caption and its panels."""

from typing import NamedTuple

__all__ = ["FIGURES", "Metric"]


class Metric(NamedTuple):
    """One metric: its variable, the title of its panel, and the label of its y axis with the unit.

    Panels of a figure that have the same label have the same range of y.
    """

    variable: str
    title: str
    label: str
    per_layer: bool = False
    log: bool = False  # a logarithmic axis where the largest number is more than figures.LOG_FROM times the smallest


FIGURES = {
    "accuracy": (
        "Accuracy per task.",
        Metric("final_accuracy", "at the end of the task", "final accuracy (fraction)"),
        Metric("online_accuracy", "online, mean over the task", "online accuracy (fraction)"),
        Metric("test_accuracy", "on test data", "test accuracy (fraction)"),
    ),
    "online_plasticity": (
        "Share of the loss on its batch that an update takes away, mean over the updates that were looked at.",
        Metric("online_plasticity", "online plasticity", "share of loss (fraction)"),
    ),
    "loss": (
        "Loss per task; of squared errors also the share of the targets' variance that is explained.",
        Metric("final_loss", "at the end of the task", "final loss"),
        Metric("online_loss", "online, mean over the task", "online loss"),
        Metric("explained_variance", "at the end of the task", "explained variance"),
    ),
    "units": (
        "Units of each hidden layer that do nothing, or nothing but a linear map, at the end of each task.",
        Metric("dead_fraction", "dead units", "dead units (fraction)", True),
        Metric("dormant_fraction", "dormant units", "dormant units (fraction)", True),
        Metric("linearised_fraction", "linearised units", "linearised units (fraction)", True),
        Metric("saturated_fraction", "saturated units", "saturated units (fraction)", True),
    ),
    "activations": (
        "Activations of each hidden layer, and gradients of each kernel, at the end of each task.",
        Metric("activation_sparsity", "zero activations", "zeros (fraction of entries)", True),
        Metric("feature_norm", "feature norm", "L2 norm (mean over inputs)", True, log=True),
        Metric("gradient_sparsity", "zero gradients", "zeros (fraction of kernel)", True),
    ),
    "changes": (
        "What became of the units of each hidden layer since the last measurement.",
        Metric("preactivation_shift", "shift of pre-activations", "mean shift (deviations)", True),
        Metric("preactivation_shift_spread", "spread of the shift", "deviation over units", True),
        Metric("dormant_overlap", "dormant units that stay", "still dormant (fraction)", True),
        Metric("duplicate_fraction", "duplicate units", "duplicates (fraction)", True),
    ),
    "predictions": (
        "Predictions at the end of each task: how sure they are, and how many one more update would change.",
        Metric("prediction_entropy", "entropy", "entropy (nats)"),
        Metric("churn", "churn", "changed (fraction)"),
    ),
    "norms": (
        "Size of the weights at the end of each task.",
        Metric("weight_norm", "weight norm", "L2 norm (all parameters)"),
        Metric("distance_from_init", "distance from initialisation", "L2 distance (all parameters)"),
    ),
    "weights": (
        "Each layer's kernel, and the update that the optimizer would make of it, at the end of each task.",
        Metric("spectral_norm", "spectral norm", "largest singular value", True, log=True),
        Metric("weight_rank", "rank of weights", "srank (directions)", True),
        Metric("layer_update_ratio", "relative update", "update / kernel (norms)", True, log=True),
    ),
    "gradients": (
        "Gradient and update on the evaluation inputs at the end of each task.",
        Metric("gradient_norm", "gradient norm", "L2 norm (all parameters)", log=True),
        Metric("update_ratio", "relative update", "update / weights (norms)", log=True),
        Metric("effective_learning_rate", "effective learning rate", "rate / squared norm", log=True),
    ),
    "ranks": (
        "Ranks of each hidden layer's features at the end of each task.",
        Metric("srank", "srank", "srank (directions)", True),
        Metric("effective_rank", "effective rank", "effective rank (directions)", True),
    ),
    "interference": (
        "Gradients of single examples at the end of each task: how many directions they have, and how they agree.",
        Metric("gradient_covariance_rank", "rank of the covariance", "effective rank (directions)"),
        Metric("gradient_interference", "agreement", "mean cosine"),
        Metric("interference_sign", "agreement in sign", "mean sign"),
    ),
    "curvature": (
        "The Hessian of the training loss at the end of each task.",
        Metric("sharpness", "sharpness", "largest eigenvalue", log=True),
        Metric("hessian_condition", "condition", "eigenvalues (ratio)", log=True),
        Metric("hessian_effective_rank", "effective rank", "effective rank (directions)", log=True),
        Metric("negative_curvature", "negative curvature", "of |eigenvalues| (fraction)"),
    ),
    "tangent_kernel": (
        "The empirical tangent kernel at the end of each task.",
        Metric("ntk_effective_rank", "effective rank", "effective rank (directions)"),
        Metric("ntk_condition", "condition", "eigenvalues (ratio)", log=True),
        Metric("ntk_diagonal_share", "diagonal share", "of squares (fraction)"),
    ),
    "forgetting": (
        "Accuracy on the test inputs of earlier tasks at the end of each task.",
        Metric("forgetting", "forgetting", "lost (fraction)"),
        Metric("backward_transfer", "backward transfer", "gained (fraction)"),
    ),
    "plasticity": (
        "Loss of plasticity: the loss of a copy that was fitted to fresh targets, less that of the initial network.",
        Metric("plasticity_loss", "fresh optimizer state", "plasticity loss (squared error)"),
        Metric("plasticity_loss_carried", "optimizer state of the run", "plasticity loss (squared error)"),
    ),
    "probe": (
        "Loss of copies that were fitted to fresh targets, and of new networks fitted alike.",
        Metric("probe_loss", "fresh optimizer state", "probe loss (squared error)", log=True),
        Metric("probe_loss_carried", "optimizer state of the run", "probe loss (squared error)", log=True),
        Metric("probe_loss_fresh", "new networks", "probe loss (squared error)", log=True),
    ),
    "probe_offset": (
        "Loss of copies that were fitted to fresh targets far from what they predict, and of new networks.",
        Metric("probe_offset_loss", "fresh optimizer state", "probe loss (squared error)", log=True),
        Metric("probe_offset_loss_carried", "optimizer state of the run", "probe loss (squared error)", log=True),
        Metric("probe_offset_loss_fresh", "new networks", "probe loss (squared error)", log=True),
    ),
    "probe_labels": (
        "Copies that were fitted to random labels, and new networks fitted alike: loss and accuracy on those labels.",
        Metric("probe_labels_loss", "fresh optimizer state", "probe loss", log=True),
        Metric("probe_labels_loss_carried", "optimizer state of the run", "probe loss", log=True),
        Metric("probe_labels_loss_fresh", "new networks", "probe loss", log=True),
        Metric("probe_labels_accuracy", "fresh optimizer state", "probe accuracy (fraction)"),
        Metric("probe_labels_accuracy_carried", "optimizer state of the run", "probe accuracy (fraction)"),
        Metric("probe_labels_accuracy_fresh", "new networks", "probe accuracy (fraction)"),
    ),
}
