"""`wpcrack windows`: windows of tiles or photographs, to be labeled by hand and trained on."""
