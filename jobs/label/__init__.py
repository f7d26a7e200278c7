"""`wpcrack label`: a local page on which a person says crack or road, window by window."""
