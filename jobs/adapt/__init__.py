"""`wpcrack adapt`: a model for these roads, from their unlabeled pixels."""
