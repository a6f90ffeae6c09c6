"""Train the starter vision tower: a CLIP vision encoder, contrastively, on drawn pictures with captions.

LLaVA reads the patch features of the last layer but one, so the contrast reads exactly those (averaged)
beside CLIP's usual pooled output: both must agree with the caption.
"""

import numpy as np
import torch
from starter_pictures import COLOR_NAMES, PICTURE_SIDE, SHAPES, draw_picture
from starter_training import minimise
from torch import nn
from torch.nn.functional import cross_entropy, normalize
from transformers import CLIPImageProcessorPil, CLIPVisionConfig, CLIPVisionModel

MEAN, STD = [0.85, 0.85, 0.85], [0.25, 0.25, 0.25]
WORDS = (
    "", "a", "and", "at", "the", "of", "left", "right", "above", "below", "top", "middle", "bottom", "center",
    "small", "medium", "large", *COLOR_NAMES, *SHAPES,
)  # fmt: skip
WORD_IDS = {word: i for i, word in enumerate(WORDS)}
MAX_WORDS = 20
EMBED = 96


def tower_config() -> CLIPVisionConfig:
    """Return the architecture: 64x64 pixels, 64 patches, four layers (LLaVA reads the third)."""
    return CLIPVisionConfig(
        image_size=PICTURE_SIDE,
        patch_size=8,
        hidden_size=96,
        intermediate_size=288,
        num_hidden_layers=4,
        num_attention_heads=3,
        projection_dim=EMBED,
        hidden_act="gelu",
    )


def image_processor() -> CLIPImageProcessorPil:
    """Return the processor that belongs to the tower."""
    return CLIPImageProcessorPil(
        size={"shortest_edge": PICTURE_SIDE},
        crop_size={"height": PICTURE_SIDE, "width": PICTURE_SIDE},
        resample=3,
        image_mean=MEAN,
        image_std=STD,
    )


class CaptionEncoder(nn.Module):
    """The text side of the contrast; thrown away after training."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(len(WORDS), EMBED, padding_idx=0)
        self.positions = nn.Parameter(torch.randn(MAX_WORDS, EMBED) * 0.02)
        self.layer = nn.TransformerEncoderLayer(EMBED, 4, 2 * EMBED, dropout=0.0, batch_first=True)

    def forward(self, word_ids: torch.Tensor) -> torch.Tensor:
        """Encode captions (B, T) as vectors (B, D)."""
        present = (word_ids != 0).unsqueeze(-1)
        hidden = self.layer(self.words(word_ids) + self.positions, src_key_padding_mask=~present.squeeze(-1))
        return (hidden * present).sum(1) / present.sum(1)


class Contrast(nn.Module):
    """Pull each picture's features towards its caption's vector and away from the other captions'."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.captions = CaptionEncoder()
        self.patch_head = nn.Linear(hidden_size, EMBED)
        self.pooled_head = nn.Linear(hidden_size, EMBED)
        self.log_scale = nn.Parameter(torch.tensor(2.5))

    def forward(self, tower: CLIPVisionModel, pixels: torch.Tensor, word_ids: torch.Tensor) -> torch.Tensor:
        """Return the mean of the two contrastive losses (patch features and pooled output)."""
        seen = tower(pixel_values=pixels, output_hidden_states=True)
        patches = seen.hidden_states[-2][:, 1:].mean(1)
        text = normalize(self.captions(word_ids), dim=-1)
        same = (word_ids[:, None] == word_ids[None]).all(-1).float()
        heads = (self.patch_head(patches), self.pooled_head(seen.pooler_output))
        return sum(self._agreement(normalize(h, dim=-1), text, same) for h in heads) / len(heads)

    def _agreement(self, image: torch.Tensor, text: torch.Tensor, same: torch.Tensor) -> torch.Tensor:
        """CLIP's symmetric loss, with every equal caption of the batch counted as a match."""
        logits = image @ text.T * self.log_scale.clamp(max=4.6).exp()
        target = same / same.sum(1, keepdim=True)
        return (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2


def draw_batch(size: int, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw pictures and captions as normalised pixels (B, 3, 64, 64) and word ids (B, T)."""
    pictures, captions = zip(*(draw_picture(rng) for _ in range(size)), strict=True)
    pixels = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255
    ids = torch.zeros(size, MAX_WORDS, dtype=torch.long)
    for row, caption in zip(ids, captions, strict=True):
        words = [WORD_IDS[w] for w in caption.split()][:MAX_WORDS]
        row[: len(words)] = torch.tensor(words)
    return (pixels - MEAN[0]) / STD[0], ids


def train_tower(steps: int, batch: int = 128, lr: float = 1.5e-3, seed: int = 0) -> CLIPVisionModel:
    """Train a tower from scratch and return it; every step sees new pictures."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    tower = CLIPVisionModel(tower_config())
    contrast = Contrast(tower.config.hidden_size)
    parameters = [*tower.parameters(), *contrast.parameters()]
    minimise("vision tower", lambda: contrast(tower, *draw_batch(batch, rng)), parameters, steps, lr)
    return tower.eval()
