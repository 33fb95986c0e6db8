"""Training and inference tools that import lightning, hydra, torchmetrics and datasets: the only room that may."""
