//! The node's own restart, and its end.

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};

use k8s_openapi::api::core::v1::ContainerStatus;
use kube::api::LogParams;
use serde_json::json;

use crate::harness::{Bench, Running, run, shell, status};

/// A container counts on while the kubelet is away: same id, no restart, every line once. A shim that containerd does
/// not know is ended by the next kubelet, those of running containers are not.
pub(crate) async fn survives(bench: &Bench, kubelet: Running) -> Running {
    let script = "i=0; while true; do i=$((i+1)); echo line $i; usleep 2000; done";
    bench.create("counter", json!({"containers": shell(script)})).await;
    let before = bench.until_ready("counter").await;
    kubelet.end().await;
    let (mut forgotten, _its_log) = forgotten_shim(bench);
    let kubelet = bench.start().await;
    let ended = tokio::task::spawn_blocking(move || forgotten.wait()).await.expect("task").expect("wait");
    assert_eq!(ended.signal(), Some(9), "the forgotten shim was killed");
    // A pod that starts now shows that the new kubelet works.
    bench.create("other", json!({"containers": shell("sleep 1000")})).await;
    bench.until_ready("other").await;
    let after = bench.until_ready("counter").await;
    assert_eq!(status(&before).container_id, status(&after).container_id);
    assert_eq!(status(&after).restart_count, 0);
    assert_eq!(
        before.status.as_ref().and_then(|s| s.pod_ip.clone()),
        after.status.as_ref().and_then(|s| s.pod_ip.clone())
    );
    let log = bench.pods().logs("counter", &LogParams::default()).await.expect("logs");
    assert!(log.lines().count() > 10);
    for (n, line) in log.lines().enumerate() {
        assert_eq!(line, format!("line {}", n + 1));
    }
    bench.remove("other").await;
    private_containerd_stands_alone(bench);
    containerd_is_killed(bench, &status(&before)).await;
    bench.remove("counter").await;
    kubelet
}

/// A containerd that was killed is started again, and what ran under it runs on.
async fn containerd_is_killed(bench: &Bench, counter: &ContainerStatus) {
    let before = private_pid(bench);
    let pid = nix::unistd::Pid::from_raw(before.parse().expect("pid"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("kill");
    bench.create("afterwards", json!({"containers": shell("sleep 1000")})).await;
    bench.until_ready("afterwards").await;
    assert_ne!(private_pid(bench), before);
    let after = bench.until_ready("counter").await;
    assert_eq!((&status(&after).container_id, status(&after).restart_count), (&counter.container_id, 0));
    // It still writes its log, and its end is still heard of.
    let lines = |log: String| log.lines().count();
    let seen = lines(bench.log_of("counter", "c").await);
    bench.until_log("counter", &format!("line {}", seen + 100)).await;
    bench.remove("afterwards").await;
}

fn private_pid(bench: &Bench) -> String {
    let pid = std::fs::read_to_string(bench.config().data_dir.join("containerd/pid")).expect("pid");
    pid.trim().to_owned()
}

/// A real shim of our namespace in the state in which containerd forgets one: it serves, and has no task.
fn forgotten_shim(bench: &Bench) -> (Child, File) {
    let config = bench.config();
    let bundle = bench.host_dir("bundle");
    let socket = config.containerd_socket.display().to_string();
    std::fs::write(bundle.join("config.json"), r#"{"ociVersion": "1.0.2"}"#).expect("config");
    // It writes its log into a pipe that somebody must have open.
    let log = bundle.join("log");
    run("mkfifo", &[&log.display().to_string()]);
    let log = File::options().read(true).write(true).open(log).expect("log");
    let its_own = bundle.join("s");
    let mut shim = Command::new("containerd-shim-runc-v2")
        .args(["-namespace", &config.containerd_namespace, "-id", "forgotten", "-address", &socket])
        .arg("-socket")
        .arg(&its_own)
        .env("TTRPC_ADDRESS", format!("{socket}.ttrpc"))
        .current_dir(&bundle)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("containerd-shim-runc-v2 is missing");
    while !its_own.try_exists().expect("socket") {
        assert_eq!(shim.try_wait().expect("shim"), None, "the shim serves");
        std::thread::yield_now();
    }
    (shim, log)
}

/// Neither our terminal nor who ends our cgroup reaches the containerd that we started.
fn private_containerd_stands_alone(bench: &Bench) {
    let pid = private_pid(bench);
    let field = |n: usize| {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).expect("stat");
        let rest = stat.rsplit_once(") ").expect("stat").1.to_owned();
        rest.split(' ').nth(n).expect("field").to_owned()
    };
    // Process group and session are its own; it has no terminal.
    assert_eq!((field(2).as_str(), field(3).as_str(), field(4).as_str()), (pid.trim(), pid.trim(), "0"));
    let own = std::fs::read_to_string("/proc/self/cgroup").expect("cgroup");
    let its = std::fs::read_to_string(format!("/proc/{}/cgroup", pid.trim())).expect("cgroup");
    for line in its.lines().filter(|l| !l.contains(":cpuset:")) {
        assert!(line.contains("/binnacle-containerd-"), "{line}");
        assert!(!own.contains(line), "{line}");
    }
}

/// After `purge` nothing of the node is on the machine.
pub(crate) async fn leaves_nothing(bench: &Bench) {
    let config = bench.config();
    kubelet::purge(&config).await.expect("purge");
    network::purge(&config.network).await.expect("purge again");
    let left: Vec<_> =
        std::fs::read_dir(&config.data_dir).expect("data").flatten().map(|e| e.file_name()).collect();
    assert!(left.is_empty(), "{left:?}");
    for hierarchy in std::fs::read_dir("/sys/fs/cgroup").expect("cgroups").flatten() {
        let cgroup = hierarchy.path().join(&config.cgroup_root);
        assert!(!cgroup.try_exists().expect("cgroup"), "{cgroup:?} is left");
    }
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("mounts");
    assert!(!mounts.contains(&config.data_dir.display().to_string()), "{mounts}");
    let ours = config.data_dir.display().to_string();
    let processes = std::fs::read_dir("/proc").expect("proc").flatten();
    let lines = processes.filter_map(|p| std::fs::read_to_string(p.path().join("cmdline")).ok());
    let left: Vec<String> = lines.filter(|l| l.contains(&ours)).collect();
    assert!(left.is_empty(), "{left:?}");
}
