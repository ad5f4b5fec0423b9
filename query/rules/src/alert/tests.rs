//! Alerts through time: each case is what the expression held at each minute, and the state that follows.

use super::*;

const MINUTE: i64 = 60_000;

fn labels(host: &str) -> Labels {
    Labels::from_pairs([("alertname", "A"), ("host", host)])
}

fn minutes(n: u64) -> Duration {
    Duration::from_secs(60 * n)
}

/// For each character of `holds` a minute: `x` if the expression holds. Gives `.`, `p` or `F` for each.
fn states(holds: &str, hold: Duration, keep_firing_for: Duration) -> String {
    let mut alerts = Alerts::default();
    let durations = Durations { hold, keep_firing_for };
    (0..)
        .zip(holds.chars())
        .map(|(i, c)| {
            let mut found = BTreeMap::new();
            if c == 'x' {
                found.insert(labels("a"), Found { annotations: Annotations::new(), value: 1.0 });
            }
            alerts.advance(i * MINUTE, found, durations, 0).expect("no limit");
            match alerts.state() {
                AlertState::Inactive => '.',
                AlertState::Pending => 'p',
                AlertState::Firing => 'F',
            }
        })
        .collect()
}

#[test]
fn an_alert_waits_fires_and_ends() {
    let check = |holds: &str, hold: u64, keep: u64, expect: &str| {
        assert_eq!(states(holds, minutes(hold), minutes(keep)), expect, "{holds} for {hold} keep {keep}");
    };
    // At once.
    check(".xx.", 0, 0, ".FF.");
    // Always, never.
    check("xxxx", 0, 0, "FFFF");
    check("....", 0, 0, "....");
    // It waits whole minutes.
    check("xxxxx.", 3, 0, "pppFF.");
    check("xx.xx.", 3, 0, "pp.pp.");
    // Flapping begins to wait anew each time.
    check("x.x.xxxx", 2, 0, "p.p.ppFF");
    // It goes on for a while, and for the whole of it anew if the expression holds in between.
    check("xx.....", 1, 3, "pFFFF..");
    check("xx..x.....", 1, 3, "pFFFFFFF..");
    // One that never fired is not kept.
    check("x....", 2, 3, "p....");
    // It fires anew behind the end.
    check("x.x.x", 0, 0, "F.F.F");
}

#[test]
fn a_wait_shorter_than_the_interval_takes_one_evaluation() {
    assert_eq!(states("xxx", Duration::from_secs(10), Duration::ZERO), "pFF");
}

#[test]
fn alerts_of_one_rule_go_each_its_own_way_and_are_bounded() {
    let mut alerts = Alerts::default();
    let durations = Durations { hold: minutes(1), ..Durations::default() };
    let found = |hosts: &[&str]| {
        let all = hosts.iter().map(|h| {
            let annotations = Annotations::from([("summary".to_owned(), (*h).to_owned())]);
            (labels(h), Found { annotations, value: 1.0 })
        });
        all.collect::<BTreeMap<_, _>>()
    };
    let mut at = |minute: i64, hosts: &[&str]| {
        let changes = alerts.advance(minute * MINUTE, found(hosts), durations, 2).expect("within the limit");
        let told = changes.iter().map(|c| {
            let host = c.alert.labels.get("host").unwrap_or("");
            format!("{host} {}-{}", c.from.as_str(), c.alert.state.as_str())
        });
        told.collect::<Vec<_>>()
    };
    assert_eq!(at(0, &["b"]), ["b inactive-pending"]);
    assert_eq!(at(1, &["b", "a"]), ["a inactive-pending", "b pending-firing"]);
    assert_eq!(at(2, &["a"]), ["a pending-firing", "b firing-inactive"]);
    assert_eq!(at(3, &["a", "c"]), ["c inactive-pending"]);
    let e = alerts.advance(4 * MINUTE, found(&["a", "b", "c"]), durations, 2).expect_err("three");
    assert_eq!(e, "exceeded limit of 2 with 3 alerts");
    assert_eq!(alerts.all().count(), 0);
}

#[test]
fn alerts_are_told_of_when_they_fire_again_and_when_they_end() {
    let mut alerts = Alerts::default();
    let durations = Durations { hold: minutes(1), ..Durations::default() };
    let mut sent = Vec::new();
    // Every quarter of a minute; the expression holds up to the third minute.
    for i in 0..80 {
        let now = i * MINUTE / 4;
        let mut found = BTreeMap::new();
        if i <= 12 {
            found.insert(labels("a"), Found { annotations: Annotations::new(), value: 1.0 });
        }
        alerts.advance(now, found, durations, 0).expect("no limit");
        sent.extend(alerts.due(now, minutes(1)).iter().map(|a| (i, a.state, a.resolved_at)));
    }
    let firing: Vec<i64> = sent.iter().filter(|s| s.1 == AlertState::Firing).map(|s| s.0).collect();
    // At once, and again when more than a minute has gone by.
    assert_eq!(firing, [4, 9]);
    let ended: Vec<_> = sent.iter().filter(|s| s.1 == AlertState::Inactive).collect();
    assert_eq!(ended[0].0, 13);
    assert!(ended.iter().all(|s| s.2 == Some(13 * MINUTE / 4)));
    // For a quarter of an hour, then it is forgotten.
    assert_eq!(ended.last().map(|s| s.0), Some(73));
    assert_eq!(alerts.all().count(), 0);
}

#[test]
fn a_rule_that_waits_for_longer_now_makes_its_alerts_wait() {
    let mut alerts = Alerts::default();
    let found = || BTreeMap::from([(labels("a"), Found { annotations: Annotations::new(), value: 1.0 })]);
    alerts.advance(0, found(), Durations::default(), 0).expect("fires");
    assert_eq!(alerts.state(), AlertState::Firing);
    let longer = Durations { hold: minutes(5), ..Durations::default() };
    alerts.advance(MINUTE, found(), longer, 0).expect("waits");
    assert_eq!(alerts.state(), AlertState::Pending);
    alerts.advance(5 * MINUTE, found(), longer, 0).expect("fires");
    assert_eq!(alerts.state(), AlertState::Firing);
}
