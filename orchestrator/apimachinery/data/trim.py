#!/usr/bin/env python3
"""Makes kubernetes-1.35.json.gz from the definitions in PyPI's kubernetes-validate. See README.md.

Usage: trim.py PATH/kubernetes-json-schema/v1.35.0-local/_definitions.json
"""
import gzip
import json
import pathlib
import sys

ROOTS = """
io.k8s.api.core.v1.Namespace io.k8s.api.core.v1.Node io.k8s.api.core.v1.Pod io.k8s.api.core.v1.Service
io.k8s.api.core.v1.Endpoints io.k8s.api.core.v1.ConfigMap io.k8s.api.core.v1.Secret io.k8s.api.core.v1.ServiceAccount
io.k8s.api.core.v1.Event io.k8s.api.core.v1.Binding io.k8s.api.core.v1.PersistentVolume
io.k8s.api.core.v1.PersistentVolumeClaim io.k8s.api.core.v1.ReplicationController io.k8s.api.core.v1.ResourceQuota
io.k8s.api.core.v1.LimitRange io.k8s.api.core.v1.PodTemplate
io.k8s.api.discovery.v1.EndpointSlice io.k8s.api.events.v1.Event io.k8s.api.coordination.v1.Lease
io.k8s.api.apps.v1.Deployment io.k8s.api.apps.v1.ReplicaSet io.k8s.api.apps.v1.StatefulSet
io.k8s.api.apps.v1.DaemonSet io.k8s.api.apps.v1.ControllerRevision
io.k8s.api.batch.v1.Job io.k8s.api.batch.v1.CronJob
io.k8s.api.autoscaling.v1.HorizontalPodAutoscaler io.k8s.api.autoscaling.v2.HorizontalPodAutoscaler
io.k8s.api.autoscaling.v1.Scale io.k8s.api.policy.v1.Eviction io.k8s.api.policy.v1.PodDisruptionBudget
io.k8s.api.networking.v1.Ingress io.k8s.api.networking.v1.IngressClass io.k8s.api.networking.v1.NetworkPolicy
io.k8s.api.networking.v1.IPAddress io.k8s.api.networking.v1.ServiceCIDR
io.k8s.api.storage.v1.StorageClass io.k8s.api.storage.v1.VolumeAttachment io.k8s.api.storage.v1.CSIDriver
io.k8s.api.storage.v1.CSINode io.k8s.api.scheduling.v1.PriorityClass io.k8s.api.node.v1.RuntimeClass
io.k8s.api.rbac.v1.Role io.k8s.api.rbac.v1.ClusterRole io.k8s.api.rbac.v1.RoleBinding
io.k8s.api.rbac.v1.ClusterRoleBinding io.k8s.api.authentication.v1.TokenRequest
io.k8s.api.authentication.v1.TokenReview io.k8s.api.authentication.v1.SelfSubjectReview
io.k8s.api.authorization.v1.SubjectAccessReview io.k8s.api.authorization.v1.SelfSubjectAccessReview
io.k8s.api.authorization.v1.SelfSubjectRulesReview io.k8s.api.authorization.v1.LocalSubjectAccessReview
io.k8s.api.admissionregistration.v1.MutatingWebhookConfiguration
io.k8s.api.admissionregistration.v1.ValidatingWebhookConfiguration
io.k8s.api.admissionregistration.v1.ValidatingAdmissionPolicy
io.k8s.api.admissionregistration.v1.ValidatingAdmissionPolicyBinding
io.k8s.api.admissionregistration.v1beta1.MutatingAdmissionPolicy
io.k8s.api.admissionregistration.v1beta1.MutatingAdmissionPolicyBinding
io.k8s.api.certificates.v1.CertificateSigningRequest io.k8s.api.flowcontrol.v1.FlowSchema
io.k8s.api.flowcontrol.v1.PriorityLevelConfiguration io.k8s.api.resource.v1.DeviceClass
io.k8s.api.resource.v1.ResourceClaim io.k8s.api.resource.v1.ResourceClaimTemplate io.k8s.api.resource.v1.ResourceSlice
io.k8s.api.storage.v1.CSIStorageCapacity io.k8s.api.storage.v1.VolumeAttributesClass
io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition
io.k8s.kube-aggregator.pkg.apis.apiregistration.v1.APIService
""".split()


def clean(node, names=False):
    """`names`: the keys are names of properties, not words of a schema."""
    if isinstance(node, list):
        return [clean(n) for n in node]
    if not isinstance(node, dict):
        return node
    out = {}
    for key, value in node.items():
        if key == "type" and isinstance(value, list) and not names:
            value = next(v for v in value if v != "null")
        if key == "enum" and not names:
            continue
        if key == "$ref" and not names:
            value = value.replace("#/$defs/", "#/components/schemas/")
        out[key] = clean(value, key == "properties" and not names)
    return out


def refs(node):
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "$ref" and isinstance(value, str):
                yield value.rsplit("/", 1)[1]
            else:
                yield from refs(value)
    elif isinstance(node, list):
        for n in node:
            yield from refs(n)


def main():
    definitions = json.load(open(sys.argv[1]))["$defs"]
    keep, queue = {}, list(ROOTS)
    while queue:
        name = queue.pop()
        if name not in keep:
            keep[name] = clean(definitions[name])
            queue.extend(refs(keep[name]))
    text = json.dumps(dict(sorted(keep.items())), separators=(",", ":"), sort_keys=True)
    out = pathlib.Path(__file__).with_name("kubernetes-1.35.json.gz")
    with open(out, "wb") as f, gzip.GzipFile(fileobj=f, mode="wb", mtime=0, compresslevel=9, filename="") as g:
        g.write(text.encode())
    print(len(keep), "definitions,", len(text), "bytes,", out.stat().st_size, "compressed")


if __name__ == "__main__":
    main()
