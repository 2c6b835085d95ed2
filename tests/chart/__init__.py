"""The Helm chart: rendered by Helm's own engine, judged by Kubernetes' own schemas and by the sidecar itself."""
