//! What is sent, and what is dropped when it cannot be.

use super::*;
use crate::alert::{AlertState, Annotations};

fn alert() -> Alert {
    Alert {
        state: AlertState::Firing,
        labels: Labels::from_pairs([("alertname", "A"), ("cluster", "own")]),
        annotations: Annotations::new(),
        value: 1.0,
        active_at: 0,
        fired_at: Some(1000),
        resolved_at: None,
        keep_firing_since: None,
        last_sent_at: None,
    }
}

#[test]
fn an_alert_says_when_it_began_and_until_when_it_holds() {
    let m = message(&alert(), "http://h/x", 241_000);
    assert_eq!(
        (m["startsAt"].as_str(), m["endsAt"].as_str()),
        (Some("1970-01-01T00:00:01.000Z"), Some("1970-01-01T00:04:01.000Z"))
    );
    let ended = Alert { resolved_at: Some(5000), ..alert() };
    assert_eq!(message(&ended, "", 241_000)["endsAt"], "1970-01-01T00:00:05.000Z");
}

#[test]
fn what_nobody_takes_is_bounded_and_the_newest_stays() {
    let external = Labels::from_pairs([("cluster", "c1"), ("zone", "z")]);
    let n = Notifier::new(&["http://127.0.0.1:9/".to_owned()], external);
    assert_eq!(n.urls(), ["http://127.0.0.1:9/api/v2/alerts"]);
    for i in 0..3 {
        n.send((0..QUEUE / 2).map(|_| message(&alert(), &i.to_string(), 0)).collect());
    }
    let queue = n.targets[0].queue.lock();
    assert_eq!(queue.len(), QUEUE);
    assert_eq!((&queue[0]["generatorURL"], &queue[QUEUE - 1]["generatorURL"]), (&json!("1"), &json!("2")));
    // Labels of its own win over those of the house.
    assert_eq!(queue[0]["labels"], json!({"alertname": "A", "cluster": "own", "zone": "z"}));
}
