"""What a cluster needs: settings, images, manifests, and a whole one on this machine (`infra/stack/`)."""
