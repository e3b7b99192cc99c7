"""Teaching: data readers, feature cache, losses, alignment of the embedded model, and its figures."""
