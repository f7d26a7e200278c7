"""Released checkpoint -> run folder that evaluate, predict and infer accept.

    wpcrack import-weights wpcracknet.ckpt --out runs/released

The file may hold anything beside the tensors; code in it is never run.
"""

from __future__ import annotations

from pathlib import Path

from geo.files import write_text
from jobs.runtime.folder import require_writable
from jobs.runtime.versions import own_version
from wpcrack.errors import CheckpointError
from wpcrack.model import MODEL_FOLDER, save_model
from wpcrack.released_weights import import_released

CARD = "MODEL_CARD.md"


def run_import(file: Path, out: Path) -> Path:
    """Write `out`/model/ and `out`/MODEL_CARD.md.

    Args:
        file: The authors' Lightning checkpoint, or a state dict of the same names.
        out: New or empty folder.

    Returns:
        The model folder.

    Raises:
        CheckpointError: The file does not hold the released networks, or `out` is in use.
        OutputError: `out` cannot be written.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CheckpointError(f"{out} exists already and is not empty; choose another --out")
    require_writable(out, f"--out {out}")
    networks, info = import_released(file)
    info = info.model_copy(update={"trained": {**info.trained, "wpcrack": own_version()}})
    folder = out / MODEL_FOLDER
    save_model(folder, networks, info)
    write_text(out / CARD, model_card(info.trained))
    count = sum(p.numel() for p in networks.state_dict().values())
    print(f"{count / 1e6:.1f} million numbers of {file.name} -> {folder}")
    return folder


def model_card(trained: dict[str, str]) -> str:
    """Describe in Markdown what was imported, and what is not known about it."""
    return "\n".join(
        [
            "# Model card",
            "",
            "Road crack detector: the released networks of WP-CrackNet (arXiv 2510.17566).",
            "",
            f"* Imported from: `{trained['imported']}`, SHA-256 {trained['sha256']}",
            f"* By: wpcrack {trained['wpcrack']}",
            "* Pixel size: photographs, pixel size unknown",
            "* Training data, their split and their license: see the authors of the file",
            "",
            "Not claimed: any score. Measure with `wpcrack evaluate` on images of your own.",
            "",
        ]
    )
