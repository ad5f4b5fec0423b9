"""Stands where kr8s' test suite expects pytest-kind: the cluster is the one that KUBECONFIG names, and it stays."""

import os
import pathlib
import subprocess


class KindCluster:
    def __init__(self, name, image=None):
        self.name = name
        self.kubeconfig_path = pathlib.Path(os.environ["KUBECONFIG"])
        self.kubectl_path = pathlib.Path(os.environ["BINNACLE_KUBECTL"])

    def create(self):
        pass

    def delete(self):
        pass

    def kubectl(self, *args, **kwargs):
        return subprocess.run([self.kubectl_path, *args], check=True, capture_output=True, text=True, **kwargs).stdout
