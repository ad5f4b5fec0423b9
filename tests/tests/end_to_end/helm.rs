//! Helm 3 and Helm 4, side by side: a chart as `helm create` makes it, with hooks and a CustomResourceDefinition, from its
//! installation to its end.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tests::{Cluster, required};

const IMAGE: &str = "binnacle.io/shop:latest";
/// What the chart's server is: `helm create` knows no command.
const COMMAND: &str = r#"          command: ["sh", "-c", "busybox mkdir -p /tmp/w; echo ok > /tmp/w/index.html; exec busybox httpd -f -p 80 -h /tmp/w"]
          image: "#;
const HOOK: &str = r#"apiVersion: batch/v1
kind: Job
metadata:
  name: {{ .Release.Name }}-before
  annotations:
    "helm.sh/hook": pre-install,pre-upgrade
    "helm.sh/hook-delete-policy": before-hook-creation,hook-succeeded
spec:
  template:
    spec:
      restartPolicy: Never
      containers:
      - {name: before, image: "binnacle.io/shop:latest", imagePullPolicy: IfNotPresent, command: ["sh", "-c", ":"]}
"#;
const WIDGET: &str = r#"apiVersion: helm.example.com/v1
kind: NAME
metadata: {name: {{ .Release.Name }}}
spec: {size: {{ .Values.replicaCount }}}
"#;
const CRD: &str = r#"apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: PLURAL.helm.example.com}
spec:
  group: helm.example.com
  scope: Namespaced
  names: {plural: PLURAL, singular: PLURAL, kind: NAME}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object, required: [size], properties: {size: {type: integer, maximum: 3}}}
"#;

pub(crate) fn both_helms(c: &Cluster) -> Result<()> {
    std::thread::scope(|s| {
        let runs = [("helm-3", "one", "Gadget"), ("helm", "two", "Widget")].map(|(tool, release, kind)| {
            (tool, s.spawn(move || Release::new(c, tool, release, kind)?.whole_life()))
        });
        for (tool, run) in runs {
            run.join().expect("a step that fails says so").with_context(|| tool.to_owned())?;
        }
        Ok(())
    })
}

struct Release<'a> {
    cluster: &'a Cluster,
    helm: PathBuf,
    name: &'static str,
    chart: PathBuf,
    plural: String,
}

impl<'a> Release<'a> {
    fn new(cluster: &'a Cluster, tool: &str, name: &'static str, kind: &str) -> Result<Release<'a>> {
        let helm = required("BINNACLE_KUBECTL")?.with_file_name(tool);
        let home = cluster.data_dir().join(format!("{tool}-home"));
        fs::create_dir_all(&home)?;
        let plural = format!("{}s", kind.to_lowercase());
        let release = Release { cluster, helm, name, chart: home.join(name), plural };
        release.helm(&["create", &release.chart.display().to_string()])?;
        let at = |file: &str| release.chart.join(file);
        edit(&at("templates/deployment.yaml"), "          image: ", COMMAND)?;
        edit(
            &at("templates/tests/test-connection.yaml"),
            "image: busybox",
            &format!("image: {IMAGE}\n      imagePullPolicy: IfNotPresent"),
        )?;
        fs::write(at("templates/before.yaml"), HOOK)?;
        fs::create_dir_all(at("crds"))?;
        let of_kind = |text: &str| text.replace("PLURAL", &release.plural).replace("NAME", kind);
        fs::write(at("crds/crd.yaml"), of_kind(CRD))?;
        fs::write(at("templates/own.yaml"), of_kind(WIDGET))?;
        Ok(release)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut c = Command::new(&self.helm);
        c.env("KUBECONFIG", self.cluster.data_dir().join("admin.kubeconfig")).args(args);
        if let Some(home) = self.chart.parent() {
            c.env("HOME", home);
        }
        c
    }

    fn helm(&self, args: &[&str]) -> Result<String> {
        let out = self
            .command(args)
            .output()
            .with_context(|| format!("start {:?}: run the tests by `make test`", self.helm))?;
        let (text, errors) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        ensure!(out.status.success(), "{args:?}: {text}{errors}");
        Ok(text.into_owned())
    }

    /// What the release's objects say of its size: replicas that are ready, and its own resource.
    fn sizes(&self) -> Result<(i64, i64)> {
        let deployment = self.cluster.kubectl_json(&[
            "get",
            "deployment",
            "-n",
            "default",
            "-l",
            &format!("app.kubernetes.io/instance={}", self.name),
        ])?;
        let own = self.cluster.kubectl_json(&["get", &self.plural, self.name, "-n", "default"])?;
        let ready = deployment["items"][0]["status"]["readyReplicas"].as_i64().unwrap_or(0);
        Ok((ready, own["spec"]["size"].as_i64().unwrap_or(0)))
    }

    fn whole_life(&self) -> Result<()> {
        let chart = self.chart.display().to_string();
        let image = ["--set", "image.repository=binnacle.io/shop,image.tag=latest", "-n", "default"];
        let with = |args: &[&str]| self.helm(&[args, &image[..]].concat());
        let (name, wait) = (self.name, ["--wait", "--timeout", "60s"]);
        let installed = with(&[&["install", name, &*chart], &wait[..]].concat())?;
        ensure!(installed.contains("STATUS: deployed"), "{installed}");
        ensure!(self.sizes()? == (1, 1), "after install: {:?}", self.sizes());
        // The hook ran, and went.
        let job = self.cluster.kubectl_fails(&["get", "job", &format!("{name}-before"), "-n", "default"])?;
        ensure!(job.contains("NotFound"), "{job}");
        with(&[&["upgrade", name, &*chart, "--set", "replicaCount=2"], &wait[..]].concat())?;
        ensure!(self.sizes()? == (2, 2), "after upgrade: {:?}", self.sizes());
        // The schema refuses it; the release says so and stays what it was.
        let failed = self
            .command(&[&["upgrade", name, &*chart, "--set", "replicaCount=4"], &image[..]].concat())
            .output()?;
        let why = String::from_utf8_lossy(&failed.stderr).into_owned();
        ensure!(!failed.status.success() && why.contains("should be less than or equal to 3"), "{why}");
        self.helm(&[&["rollback", name, "1", "-n", "default"], &wait[..]].concat())?;
        ensure!(self.sizes()? == (1, 1), "after rollback: {:?}", self.sizes());
        let history = self.helm(&["history", name, "-n", "default"])?;
        ensure!(history.contains("Rollback to 1") && history.contains("failed"), "{history}");
        let tested = self.helm(&["test", name, "-n", "default", "--timeout", "60s"])?;
        ensure!(tested.contains("Succeeded"), "{tested}");
        let listed = self.helm(&["list", "-n", "default", "-q"])?;
        ensure!(listed.lines().any(|l| l == name), "{listed}");
        self.helm(&[&["uninstall", name, "-n", "default"], &wait[..]].concat())?;
        let left = self.cluster.kubectl(&[
            "get",
            "all",
            "-n",
            "default",
            "-o",
            "name",
            "-l",
            &format!("app.kubernetes.io/instance={name},!helm.sh/hook"),
        ])?;
        ensure!(!left.contains("deployment"), "uninstalled, but there: {left}");
        // Helm leaves what it made of crds/.
        self.cluster.kubectl(&["delete", "crd", &format!("{}.helm.example.com", self.plural)])?;
        Ok(())
    }
}

fn edit(file: &Path, from: &str, to: &str) -> Result<()> {
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    ensure!(text.contains(from), "{} has no {from:?}:\n{text}", file.display());
    Ok(fs::write(file, text.replacen(from, to, 1))?)
}
