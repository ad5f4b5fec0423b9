//! Rollouts played through: the plan is applied to a small model until nothing is left to do.

use super::*;

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().expect("a time")
}

fn deployment(replicas: i32, image: &str, strategy: Value) -> Deployment {
    serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "shop", "uid": "d1", "generation": 1},
        "spec": {"replicas": replicas, "strategy": strategy, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": image}]}}}
    }))
    .expect("a deployment")
}

/// Applies the actions as the API server and the ReplicaSet controller would, every pod ready at once.
fn apply(d: &mut Deployment, sets: &mut Vec<Arc<ReplicaSet>>, actions: Vec<Action>) {
    for a in actions {
        match a {
            Action::Create(mut rs) => {
                rs.metadata.uid = Some(format!("uid-{}", rs.name_any()));
                sets.push(Arc::new(*rs));
            }
            Action::Scale { name, to, .. } => {
                let rs = sets.iter_mut().find(|r| r.name_any() == name).expect("the set");
                let mut new = (**rs).clone();
                new.spec.as_mut().expect("spec").replicas = Some(to);
                *rs = Arc::new(new);
            }
            Action::PatchSet { name, patch } => {
                let rs = sets.iter_mut().find(|r| r.name_any() == name).expect("the set");
                let mut v = serde_json::to_value(&**rs).expect("json");
                json_merge(&mut v, &patch);
                *rs = Arc::new(serde_json::from_value(v).expect("a set"));
            }
            Action::Delete { name } => sets.retain(|r| r.name_any() != name),
            Action::PatchDeployment(patch) => {
                let mut v = serde_json::to_value(&*d).expect("json");
                json_merge(&mut v, &patch);
                *d = serde_json::from_value(v).expect("a deployment");
            }
            Action::Status(s) => d.status = Some(*s),
        }
    }
    for rs in sets {
        let n = replicas(rs);
        let mut new = (**rs).clone();
        let status = new.status.get_or_insert_default();
        (status.replicas, status.ready_replicas, status.available_replicas) = (n, Some(n), Some(n));
        *rs = Arc::new(new);
    }
}

fn json_merge(a: &mut Value, b: &Value) {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            for (k, v) in b {
                json_merge(a.entry(k).or_insert(Value::Null), v);
            }
        }
        (a, b) => *a = b.clone(),
    }
}

/// Runs to the end; checks after each step that no fewer and no more pods run than the strategy allows.
fn settle(d: &mut Deployment, sets: &mut Vec<Arc<ReplicaSet>>, least: i32, most: i32) {
    for _ in 0..100 {
        let p = plan(d, sets, now()).expect("a plan");
        if p.actions.is_empty() {
            return;
        }
        apply(d, sets, p.actions);
        let total: i32 = sets.iter().map(|rs| replicas(rs)).sum();
        assert!((least..=most).contains(&total), "{total} pods, allowed {least} to {most}");
    }
    panic!("the rollout never settles");
}

#[test]
fn a_new_deployment_makes_one_set_of_full_size_and_settles() {
    let mut d = deployment(3, "a:1", json!({"type": "RollingUpdate"}));
    let mut sets = vec![];
    settle(&mut d, &mut sets, 3, 3);
    assert_eq!(sets.len(), 1);
    assert_eq!(d.annotations()[REVISION], "1");
    let status = d.status.expect("status");
    assert_eq!((status.ready_replicas, status.updated_replicas), (Some(3), Some(3)));
    assert!(status.conditions.expect("conditions").iter().all(|c| c.status == "True"));
}

#[test]
fn a_rolling_update_stays_within_surge_and_unavailable() {
    let check = |n: i32, surge: Value, missing: Value, least: i32, most: i32| {
        let strategy =
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": missing}});
        let mut d = deployment(n, "a:1", strategy.clone());
        let mut sets = vec![];
        settle(&mut d, &mut sets, n, n);
        d.spec = deployment(n, "a:2", strategy).spec;
        settle(&mut d, &mut sets, least, most);
        assert_eq!(sets.iter().map(|rs| replicas(rs)).sum::<i32>(), n);
        assert_eq!(replicas(&sets[1]), n, "all pods are of the new template");
        assert_eq!(d.annotations()[REVISION], "2");
    };
    check(4, json!("25%"), json!("25%"), 3, 5);
    check(10, json!(1), json!(0), 10, 11);
    check(3, json!(0), json!(1), 2, 3);
    check(1, json!("25%"), json!("25%"), 1, 2);
    check(2, json!(0), json!(0), 1, 2);
}

#[test]
fn going_back_reuses_the_old_set_under_a_new_revision() {
    let rolling = json!({"type": "RollingUpdate"});
    let mut d = deployment(2, "a:1", rolling.clone());
    let mut sets = vec![];
    settle(&mut d, &mut sets, 2, 2);
    d.spec = deployment(2, "a:2", rolling.clone()).spec;
    settle(&mut d, &mut sets, 1, 3);
    d.spec = deployment(2, "a:1", rolling).spec;
    settle(&mut d, &mut sets, 1, 3);
    assert_eq!((sets.len(), d.annotations()[REVISION].as_str()), (2, "3"));
    assert_eq!(replicas(&sets[0]), 2);
}

#[test]
fn recreate_stops_everything_first() {
    let recreate = json!({"type": "Recreate"});
    let mut d = deployment(2, "a:1", recreate.clone());
    let mut sets = vec![];
    settle(&mut d, &mut sets, 2, 2);
    d.spec = deployment(2, "a:2", recreate).spec;
    settle(&mut d, &mut sets, 0, 2);
    assert_eq!((replicas(&sets[0]), replicas(&sets[1])), (0, 2));
}

#[test]
fn history_is_bounded() {
    let rolling = json!({"type": "RollingUpdate"});
    let mut d = deployment(1, "a:0", rolling.clone());
    let mut sets = vec![];
    for i in 0..6 {
        d.spec = deployment(1, &format!("a:{i}"), rolling.clone()).spec;
        d.spec.as_mut().expect("spec").revision_history_limit = Some(2);
        settle(&mut d, &mut sets, 1, 2);
    }
    assert_eq!(sets.len(), 3);
}

#[test]
fn resizing_a_settled_deployment_just_scales_its_set() {
    let mut d = deployment(2, "a:1", json!({"type": "RollingUpdate"}));
    let mut sets = vec![];
    settle(&mut d, &mut sets, 2, 2);
    d.spec.as_mut().expect("spec").replicas = Some(5);
    settle(&mut d, &mut sets, 2, 5);
    assert_eq!(replicas(&sets[0]), 5);
}
