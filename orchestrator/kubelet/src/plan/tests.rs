//! Pods in all stages of their lives, one line each.

use super::*;
use crate::runtime::Identity;
use proptest::prelude::*;
use serde_json::{Value, json};

fn pod(policy: &str, extra: Value) -> Pod {
    let mut v = json!({"metadata": {"name": "p", "uid": "u"},
        "spec": {"restartPolicy": policy, "containers": [{"name": "c", "image": "i"}]}});
    merge(&mut v, extra);
    serde_json::from_value(v).expect("pod")
}

fn merge(a: &mut Value, b: Value) {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            for (k, v) in b {
                merge(a.entry(k).or_insert(Value::Null), v);
            }
        }
        (a, b) => *a = b,
    }
}

fn record(name: &str, attempt: u32, state: State) -> Record {
    let identity = Identity {
        pod_uid: "u".to_owned(),
        pod_name: "p".to_owned(),
        namespace: "n".to_owned(),
        container: name.to_owned(),
        attempt,
        spec_hash: format!("{:08x}", crc32fast::hash(b"i")),
        image: "i".to_owned(),
        image_id: "sha256:1".to_owned(),
        cgroup: "/k".to_owned(),
        workload: String::new(),
    };
    Record { id: identity.id(), identity, state }
}

fn running() -> State {
    State::Running { pid: 1, started_at: Timestamp::from_secs(100) }
}

fn exited(code: i32, at: i64) -> State {
    State::Exited(Exit {
        code,
        oom_killed: false,
        started_at: Timestamp::from_secs(100),
        finished_at: Timestamp::from_secs(at),
        message: None,
    })
}

fn seen(states: &[(&str, u32, State)]) -> Observed {
    Observed {
        now: Timestamp::from_secs(1000),
        set_up: true,
        latest: states.iter().map(|(n, a, s)| ((*n).to_owned(), record(n, *a, s.clone()))).collect(),
        started: states.iter().map(|(n, ..)| (*n).to_owned()).collect(),
        ..Observed::default()
    }
}

/// The plan as text: phase, then each action.
fn text(pod: &Pod, o: &Observed) -> String {
    let p = plan(pod, o);
    let mut out = p.phase.as_str().to_owned();
    for a in p.actions {
        out += &match a {
            Action::SetUp => " setup".to_owned(),
            Action::Start { name, attempt } => format!(" start {name}/{attempt}"),
            Action::Stop { name, .. } => format!(" stop {name}"),
            Action::TearDown => " teardown".to_owned(),
        };
    }
    out
}

#[test]
fn a_pods_life() {
    let check = |policy: &str, extra: Value, o: &Observed, expect: &str| {
        assert_eq!(text(&pod(policy, extra.clone()), o), expect, "{policy} {extra}");
    };
    let deleted = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
    check("Always", json!({}), &Observed::default(), "Pending setup");
    check("Always", json!({}), &seen(&[]), "Pending start c/0");
    check("Always", json!({}), &seen(&[("c", 0, State::Created)]), "Pending start c/0");
    check("Always", json!({}), &seen(&[("c", 0, running())]), "Running");
    check("Always", json!({}), &seen(&[("c", 3, exited(0, 900))]), "Running start c/4");
    check("OnFailure", json!({}), &seen(&[("c", 0, exited(0, 900))]), "Succeeded");
    check("OnFailure", json!({}), &seen(&[("c", 0, exited(1, 900))]), "Running start c/1");
    check("Never", json!({}), &seen(&[("c", 0, exited(1, 900))]), "Failed");
    check("Always", deleted.clone(), &seen(&[("c", 0, running())]), "Pending stop c");
    check("Always", deleted.clone(), &seen(&[("c", 0, exited(143, 900))]), "Failed teardown");
    check("Always", deleted, &Observed::default(), "Failed teardown");
    let final_ = json!({"status": {"phase": "Succeeded"}});
    check("Never", final_, &seen(&[]), "Succeeded");
    let other = json!({"spec": {"containers": [{"name": "c", "image": "other"}]}});
    check(
        "Always",
        other,
        &seen(&[("c", 0, running())]),
        "Pending stop c".replace("Pending", "Running").as_str(),
    );
}

#[test]
fn sidecars_end_last_and_a_final_phase_waits_for_them() {
    let extra = json!({"spec": {"initContainers": [
        {"name": "s1", "image": "i", "restartPolicy": "Always"},
        {"name": "s2", "image": "i", "restartPolicy": "Always"}]}});
    let check = |extra: &Value, o: &Observed, expect: &str| {
        let mut all = json!({"status": {"phase": "Running"}});
        merge(&mut all, extra.clone());
        assert_eq!(text(&pod("Never", all), o), expect);
    };
    let (up, done) = (running(), exited(0, 900));
    let states = |s1: &State, s2: &State, c: &State| {
        seen(&[("s1", 0, s1.clone()), ("s2", 0, s2.clone()), ("c", 0, c.clone())])
    };
    check(&extra, &states(&up, &up, &up), "Running");
    check(&extra, &states(&up, &up, &done), "Running stop s2");
    let mut stopping = states(&up, &up, &done);
    stopping.stopping.insert("s2".to_owned());
    check(&extra, &stopping, "Running");
    check(&extra, &states(&up, &exited(143, 901), &done), "Running stop s1");
    check(&extra, &states(&exited(143, 902), &exited(143, 901), &done), "Succeeded");
    let mut deleted = extra.clone();
    merge(&mut deleted, json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}));
    check(&deleted, &states(&up, &up, &up), "Running stop c");
    check(&deleted, &states(&up, &up, &done), "Running stop s2");
}

#[test]
fn init_containers_come_first_and_one_by_one() {
    let p = pod(
        "Always",
        json!({"spec": {"initContainers": [
        {"name": "a", "image": "i"}, {"name": "s", "image": "i", "restartPolicy": "Always"}, {"name": "b", "image": "i"}]}}),
    );
    let check = |o: &Observed, expect: &str| assert_eq!(text(&p, o), expect);
    check(&seen(&[]), "Pending start a/0");
    check(&seen(&[("a", 0, running())]), "Pending");
    check(&seen(&[("a", 0, exited(1, 900))]), "Pending start a/1");
    check(&seen(&[("a", 0, exited(0, 900))]), "Pending start s/0");
    check(&seen(&[("a", 0, exited(0, 900)), ("s", 0, running())]), "Pending start b/0");
    let mut not_started = seen(&[("a", 0, exited(0, 900)), ("s", 0, running())]);
    not_started.started.clear();
    check(&not_started, "Pending");
    check(
        &seen(&[("a", 0, exited(0, 900)), ("s", 0, running()), ("b", 0, exited(0, 900))]),
        "Pending start c/0",
    );
    check(&seen(&[("s", 0, exited(1, 900)), ("c", 0, running())]), "Running start s/1");

    let never = pod("Never", json!({"spec": {"initContainers": [{"name": "a", "image": "i"}]}}));
    assert_eq!(text(&never, &seen(&[("a", 0, exited(1, 900))])), "Failed");
}

#[test]
fn crash_loops_wait_longer_and_longer() {
    let now = Timestamp::from_secs(1000);
    let mut b = None;
    for expect in [10, 20, 40, 80, 160, 300, 300] {
        b = Some(Backoff::next(b, now, now));
        assert_eq!(b.map(|b| b.delay.as_secs()), Some(expect));
    }
    let later = Timestamp::from_secs(1000 + 601);
    assert_eq!(Backoff::next(b, later, later).delay.as_secs(), 10);

    let mut o = seen(&[("c", 1, exited(1, 995))]);
    o.backoff.insert(
        "c".to_owned(),
        Backoff { delay: Duration::from_secs(10), updated: Timestamp::from_secs(990) },
    );
    let p = plan(&pod("Always", json!({})), &o);
    assert_eq!((p.actions.len(), p.wake), (0, Some(Timestamp::from_secs(1005))));
    assert_eq!(p.crash_looping.get("c").map(String::as_str), Some("10s"));
    assert_eq!(p.phase, Phase::Running);
}

#[test]
fn a_probe_condemns_once() {
    let mut o = seen(&[("c", 0, running())]);
    o.condemned.insert("c".to_owned(), "failed liveness probe".to_owned());
    let p = pod("Always", json!({}));
    assert_eq!(text(&p, &o), "Running stop c");
    o.stopping.insert("c".to_owned());
    assert_eq!(text(&p, &o), "Running");
}

#[test]
fn a_deadline_fails_the_pod() {
    let p = pod("Always", json!({"spec": {"activeDeadlineSeconds": 5}}));
    let mut o = seen(&[("c", 0, running())]);
    o.start_time = Some(Timestamp::from_secs(998));
    assert_eq!(plan(&p, &o).wake, Some(Timestamp::from_secs(1003)));
    o.start_time = Some(Timestamp::from_secs(990));
    assert_eq!(text(&p, &o), "Pending stop c");
    let mut over = seen(&[("c", 0, exited(137, 999))]);
    over.start_time = o.start_time;
    assert_eq!(text(&p, &over), "Failed");
    assert_eq!(plan(&p, &over).failure.map(|f| f.0), Some("DeadlineExceeded"));
}

proptest! {
    /// Invariant 3: a plan never starts what runs, nor anything in a pod that is to go.
    #[test]
    fn never_starts_what_runs(states in proptest::collection::vec(0u8..4, 3), deleted: bool, policy in 0usize..3) {
        let names = ["i", "c", "d"];
        let policy = ["Always", "OnFailure", "Never"][policy];
        let mut p = pod(policy, json!({"spec": {"initContainers": [{"name": "i", "image": "i"}],
            "containers": [{"name": "c", "image": "i"}, {"name": "d", "image": "i"}]}}));
        if deleted {
            p = serde_json::from_value({
                let mut v = serde_json::to_value(&p).expect("json");
                v["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
                v
            }).expect("pod");
        }
        let known: Vec<(&str, u32, State)> = names.iter().zip(&states).filter_map(|(n, s)| Some((*n, 0, match s {
            0 => return None,
            1 => running(),
            2 => exited(0, 900),
            _ => exited(1, 900),
        }))).collect();
        let o = seen(&known);
        for a in plan(&p, &o).actions {
            if let Action::Start { name, .. } = a {
                prop_assert!(!deleted);
                let runs = matches!(o.latest.get(&name).map(|r| &r.state), Some(State::Running { .. }));
                prop_assert!(!runs);
            }
        }
    }
}
