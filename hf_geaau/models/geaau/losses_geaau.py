"""Losses of GTLE-Net: occurrence, intensity, sides, expression triplets, and where the masks look."""

import torch
import torch.nn.functional as F
from torch import Tensor


def occurrence_loss(
    logits: Tensor,
    labels: Tensor,
    form: str = "bce",
    au_weights: Tensor | None = None,
    pos_weight: Tensor | None = None,
    label_smoothing: float = 0.0,
    focal_gamma: float = 2.0,
) -> Tensor:
    """Average the loss over the labelled entries; an unlabelled one (-1) has no gradient.

    Args:
        logits: (B, N).
        labels: (B, N): 1 present, 0 absent, -1 not labeled.
        form: "bce"; "bce_dice", which adds `dice_loss`; "asymmetric", in which the negative term is multiplied by the
            predicted probability, so that easy negatives fade; "focal", in which both terms fade by their ease.
        au_weights: (N,), weight of each AU.
        pos_weight: (N,), weight of each AU's positives.
        label_smoothing: Share of label mass given to the other class.
        focal_gamma: Exponent of the focal form.

    Returns:
        A scalar, 0 if nothing is labelled.

    Source:
        Class-weighted BCE: JAA-Net and ME-GraphAU. BCE with Dice: JAA-Net (Shao et al., IJCV 2021). Asymmetric:
        ME-GraphAU (Luo et al., IJCAI 2022); its code holds the factor constant by switching gradients off and then on
        for everybody, also inside a no-grad block, ours by `detach`. Focal: Lin et al., ICCV 2017, without its alpha,
        whose place `pos_weight` takes. Dividing by the number of labelled entries is our choice.
    """
    logits = logits.float()
    labelled = (labels >= 0).to(torch.float32)
    targets = labels.clamp(0, 1).to(torch.float32)
    smooth = targets * (1 - label_smoothing) + 0.5 * label_smoothing
    positive, negative = -smooth * F.logsigmoid(logits), -(1 - smooth) * F.logsigmoid(-logits)
    if form == "asymmetric":
        negative = negative * logits.detach().sigmoid()
    elif form == "focal":
        positive = positive * (-logits).sigmoid().pow(focal_gamma)
        negative = negative * logits.sigmoid().pow(focal_gamma)
    if pos_weight is not None:
        positive = positive * pos_weight
    losses = positive + negative
    if au_weights is not None:
        losses = losses * au_weights
    loss = (losses * labelled).sum() / labelled.sum().clamp(min=1)
    return loss + dice_loss(logits, targets, labelled, au_weights) if form == "bce_dice" else loss


def dice_loss(logits: Tensor, targets: Tensor, labelled: Tensor, au_weights: Tensor | None = None) -> Tensor:
    """Compare, per AU, the predicted with the true positives of a batch as sets.

    Args:
        logits: (B, N).
        targets: (B, N), 0 or 1.
        labelled: (B, N), 1 where the target counts.
        au_weights: (N,), weight of each AU.

    Returns:
        A scalar: the mean over AUs with a label of 1 - (2 Σ p·y + 1) / (Σ p² + Σ y² + 1); 0 if there is none.

    Source:
        JAA-Net, smoothing 1 and squares in the denominator. Its code divides the ratio by the batch size once more,
        which holds the term near 1 and its gradient near 0; this is the form of its paper.
    """
    probabilities, targets = logits.sigmoid() * labelled, targets * labelled
    overlap = 2 * (probabilities * targets).sum(0) + 1
    total = probabilities.pow(2).sum(0) + targets.pow(2).sum(0) + 1
    losses = 1 - overlap / total
    if au_weights is not None:
        losses = losses * au_weights
    counts = (labelled.sum(0) > 0).to(torch.float32)
    return (losses * counts).sum() / counts.sum().clamp(min=1)


def intensity_loss(logits: Tensor, intensities: Tensor, au_weights: Tensor | None = None) -> Tensor:
    """Cross-entropy between the predicted and the true share of full intensity; a missing one (-1) has no gradient.

    Args:
        logits: (B, N); 5 · sigmoid is the predicted intensity.
        intensities: (B, N), 0 to 5 (FACS A-E are 1-5), -1 missing.
        au_weights: (N,), weight of each AU.

    Returns:
        A scalar, 0 if none is known.

    Source:
        Our choice. It is smallest at the true intensity, as a squared error is, and unlike one taken through the
        sigmoid its gradient does not vanish at 0 and 5, where most frames are.
    """
    known = (intensities >= 0).to(torch.float32)
    shares = intensities.clamp(0, 5).to(torch.float32) / 5
    losses = F.binary_cross_entropy_with_logits(logits.float(), shares, weight=au_weights, reduction="none")
    return (losses * known).sum() / known.sum().clamp(min=1)


def side_choice_loss(logits: Tensor, sides: Tensor, au_weights: Tensor | None = None) -> Tensor:
    """Ask the side that shows an AU to score higher than the one that does not; other faces have no gradient.

    One-sided faces are so few that the occurrence loss hardly sees them: without this loss a model finds an AU on both
    sides. It is averaged over them alone, so their number does not matter.

    Args:
        logits: (B, N, 2).
        sides: (B, N, 2): 1 present, 0 absent, -1 not labeled.
        au_weights: (N,), weight of each AU.

    Returns:
        A scalar: the mean of -log sigmoid(z - z') over the faces that show an AU on the side z only; 0 without any.

    Source:
        Bradley & Terry, "Rank analysis of incomplete block designs", Biometrika 1952: the likelihood of the side, given
        that it is one of two. If the sides are independent given the face, calibrated logits have the least loss.
    """
    is_one_sided = ((sides >= 0).all(-1) & (sides[..., 0] != sides[..., 1])).to(torch.float32)
    lead = (logits[..., 0] - logits[..., 1]).float() * (sides[..., 0] - sides[..., 1]).to(torch.float32)
    losses = -F.logsigmoid(lead)
    if au_weights is not None:
        losses = losses * au_weights
    return (losses * is_one_sided).sum() / is_one_sided.sum().clamp(min=1)


def triplet_loss(distances: Tensor, margins: Tensor) -> Tensor:
    """Pull the similar pair (1, 2) together and push both away from the odd image 3.

    Args:
        distances: (B, 3), squared L2 distances d12, d13, d23 between L2-normalized embeddings.
        margins: (B,) or a scalar.

    Returns:
        A scalar: the mean of (d12 - d13 + m)+ + (d12 - d23 + m)+.

    Source:
        Vemulapalli & Agarwala, "A Compact Embedding for Facial Expression Similarity" (FECNet, arXiv 1811.11283).
    """
    d12, d13, d23 = distances.unbind(-1)
    return (F.relu(d12 - d13 + margins) + F.relu(d12 - d23 + margins)).mean()


def batch_triplet_loss(embedding: Tensor, intensities: Tensor, margin: float) -> Tensor:
    """Order the expressions of a batch: of each triplet whose intensities tell which two are alike, as `triplet_loss`.

    Args:
        embedding: (B, D), L2-normalized.
        intensities: (B, N), 0 to 5. Faces with a missing one (-1) are left out.
        margin: Of the triplet loss.

    Returns:
        A scalar: the mean over triplets with a loss above 0; 0 without any. A triplet counts if the third face is
        further from both others than these are from each other, by EXPRESSION_GAP.

    Source:
        Loss: FECNet (see `triplet_loss`). Triplets of a batch, averaged over those with a loss: Hermans et al., "In
        defense of the triplet loss", arXiv 1703.07737. Euclidean distance of the intensities is our choice.
    """
    known = (intensities >= 0).all(-1)
    shares, points = intensities[known].float() / 5, embedding[known].float()
    apart = torch.linalg.vector_norm(shares[:, None] - shares[None], dim=-1)  # (B, B)
    squared = 2 - 2 * points @ points.T
    limit = apart[:, :, None] + EXPRESSION_GAP  # (i, j, 1): how far a third face must be
    is_odd = (apart[:, None, :] >= limit) & (apart[None, :, :] >= limit)  # (i, j, k)
    is_odd = is_odd & torch.ones_like(apart, dtype=torch.bool).triu(1)[:, :, None]  # each pair once
    pair = squared[:, :, None] + margin
    losses = (F.relu(pair - squared[:, None, :]) + F.relu(pair - squared[None, :, :])) * is_odd
    return losses.sum() / (losses > 0).sum().clamp(min=1)


EXPRESSION_GAP = 0.5
"""Least difference of distances that tells who is the odd one of three, in units of one AU's full intensity. That of
`hf_geaau.data.synthetic.MIN_GAP`."""


def mask_share(masks: Tensor, regions: list[list[list[float]]]) -> Tensor:
    """Measure which share of each mask lies inside the AU's facial region.

    Args:
        masks: (B, N, h, w), not negative.
        regions: For each AU the boxes of its region: x0, y0, x1, y1 as fractions of the crop. They may touch, not
            overlap.

    Returns:
        (B, N), from 0 to 1. A cell of the map that a box covers in part counts in part.
    """
    return (masks * _coverage(regions, masks)).sum((2, 3)) / masks.sum((2, 3)).clamp(min=1e-8)


def mask_region_loss(masks: Tensor, regions: list[list[list[float]]]) -> Tensor:
    """Ask each mask to lie inside its AU's facial region: the mean of -log of the share that does. Our choice.

    Args:
        masks: (B, N, h, w), not negative.
        regions: As in `mask_share`.
    """
    return -mask_share(masks.float(), regions).clamp(min=1e-6).log().mean()


def _coverage(regions: list[list[list[float]]], masks: Tensor) -> Tensor:
    """Return (N, h, w), the share of each cell that an AU's boxes cover."""
    height, width = masks.shape[-2:]
    most = max(len(boxes) for boxes in regions)
    padded = [boxes + [[0.0] * 4] * (most - len(boxes)) for boxes in regions]  # an empty box covers nothing
    x0, y0, x1, y1 = torch.tensor(padded, device=masks.device, dtype=masks.dtype).unsqueeze(-1).unbind(2)  # (N, K, 1)
    columns = torch.arange(width, device=masks.device, dtype=masks.dtype)
    rows = torch.arange(height, device=masks.device, dtype=masks.dtype)
    across = (torch.minimum(columns + 1, x1 * width) - torch.maximum(columns, x0 * width)).clamp(min=0)  # (N, K, w)
    down = (torch.minimum(rows + 1, y1 * height) - torch.maximum(rows, y0 * height)).clamp(min=0)
    return torch.einsum("nkh,nkw->nhw", down, across).clamp(max=1)
