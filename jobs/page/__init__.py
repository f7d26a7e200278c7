"""What the local pages of `wpcrack label` and `wpcrack review` share: journal, server, looks."""
