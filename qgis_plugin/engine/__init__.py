"""The plugin's side of the engine: finding it, installing it, starting it and talking to it."""
