"""From cosines to answers: relevance scores, heatmaps, regions."""
