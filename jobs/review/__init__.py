"""`wpcrack review`: people judge a sample of a map; its precision and recall, with intervals."""
