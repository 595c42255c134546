"""File formats: safetensors, detection of file kinds, resource limits of readers."""
