"""The main job shown on one machine: `sidecar demo`. It uses the sidecar from outside only, as a user would."""
