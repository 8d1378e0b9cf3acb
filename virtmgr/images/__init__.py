"""Images on the control plane: the store of blobs, importing what is not trusted, building."""
