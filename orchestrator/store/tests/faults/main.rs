//! The store under `kill -9`: lives end at random moments, and what was said in them is checked.
//!
//! Per key and life: linearizable, from what the store held when it opened to what it held when it opened next.
//! Watches, over all lives: ordered, unique, reliable (no change is missing, and each is what a write was), resumable
//! (from where they were when killed), bookmarkable (what they say they have given, they have), atomic (a change is
//! whole: the value some write wrote). `BINNACLE_FAULTS_LIVES` says how many lives, `BINNACLE_FAULTS_SEED_FROM` which.

mod checker;
mod child;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use checker::{Answer, Ask, Operation, linearizable};

type State = BTreeMap<String, String>;

/// What one life said.
#[derive(Default)]
struct Life {
    revision: u64,
    first: State,
    /// Per key, in the order of their beginnings.
    operations: BTreeMap<String, Vec<Operation>>,
    /// Per watcher: (revision, key, value).
    seen: [Vec<(u64, String, Option<String>)>; 2],
    /// Per watcher: up to where it said it has given everything.
    bookmark: [u64; 2],
    /// Acknowledged writes: revision → (key, value).
    acknowledged: BTreeMap<u64, (String, Option<String>)>,
}

fn lives() -> u64 {
    std::env::var("BINNACLE_FAULTS_LIVES").ok().and_then(|v| v.parse().ok()).unwrap_or(6)
}

#[test]
fn every_life_is_linearizable_and_watches_miss_nothing() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let first: u64 =
        std::env::var("BINNACLE_FAULTS_SEED_FROM").ok().and_then(|v| v.parse().ok()).unwrap_or(1);
    let mut before: Option<(Life, u64)> = None;
    let mut changes: BTreeMap<u64, (String, Option<String>)> = BTreeMap::new();
    let mut resume = [0; 2];
    let (mut operations, mut kills) = (0, 0);
    for seed in first..=first + lives() {
        println!("life with seed {seed}");
        // Both watchers begin where the slower one was.
        let from = resume[0].min(resume[1]);
        let life = live(dir.path(), seed, from);
        for (watcher, at) in resume.iter_mut().enumerate() {
            *at = check_watch(&life, watcher, from, &mut changes).max(*at);
        }
        if let Some((last, seed)) = before.take() {
            println!("checking life {seed}");
            operations += check_life(&last, &life);
            kills += 1;
        }
        before = Some((life, seed));
    }
    for (revision, write) in before.iter().flat_map(|(l, _)| &l.acknowledged) {
        assert!(changes.get(revision).is_none_or(|seen| seen == write), "revision {revision}");
    }
    println!("{kills} kills, {operations} operations, {} changes watched", changes.len());
    assert!(operations > 20 * kills && !changes.is_empty(), "too little happened to tell");
}

/// Runs a child until it has said a random number of lines, kills it, and reads the rest.
fn live(dir: &Path, seed: u64, seen: u64) -> Life {
    let mut child = Command::new(std::env::current_exe().expect("this binary"))
        .args(["child::child_works_until_killed", "--exact", "--nocapture"])
        .env(child::DIR, dir)
        .env(child::SEED, seed.to_string())
        .env(child::SEEN, seen.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a child");
    let lines = BufReader::new(child.stdout.take().expect("its stdout")).lines();
    let mut until = StdRng::seed_from_u64(seed).random_range(200..1500);
    let (mut said, mut open) = (Vec::new(), false);
    for line in lines {
        // A torn last line says nothing.
        let Ok(line) = line else { break };
        open |= line.ends_with("F end -");
        said.push(line);
        if open {
            until -= 1;
            if until == 0 {
                child.kill().expect("killed");
            }
        }
    }
    child.wait().expect("its end");
    assert!(until <= 0, "the child ended by itself: {:?}", said.last());
    read(&said)
}

fn read(said: &[String]) -> Life {
    let mut life = Life::default();
    let mut asked: BTreeMap<&str, (String, usize)> = BTreeMap::new();
    for (at, line) in said.iter().enumerate() {
        let some = |v: &str| (v != "-").then(|| v.to_owned());
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            // The harness writes its own words in front of the first line.
            [.., "S", revision] => life.revision = revision.parse().expect("a revision"),
            ["F", "end", "-"] => {}
            ["F", key, value] => drop(life.first.insert(key.to_owned(), value.to_owned())),
            ["I", id, ref ask @ ..] => {
                let (key, ask) = match *ask {
                    ["read", key] => (key, Ask::Read),
                    ["create", key, v] => (key, Ask::Create(v.to_owned())),
                    ["swap", key, old, new] => (key, Ask::Swap(old.to_owned(), new.to_owned())),
                    ["delete", key, old] => (key, Ask::Delete(old.to_owned())),
                    _ => continue,
                };
                let of_key = life.operations.entry(key.to_owned()).or_default();
                asked.insert(id, (key.to_owned(), of_key.len()));
                of_key.push(Operation { ask, answer: Answer::Unknown, begun: at, ended: usize::MAX });
            }
            ["R", id, ref answer @ ..] => {
                let (key, n) = &asked[id];
                let o = &mut life.operations.get_mut(key).expect("it was asked")[*n];
                o.ended = at;
                o.answer = match *answer {
                    ["saw", v] => Answer::Saw(some(v)),
                    ["refused"] => Answer::Refused,
                    ["done", revision] => {
                        let value = match &o.ask {
                            Ask::Create(v) | Ask::Swap(_, v) => Some(v.clone()),
                            _ => None,
                        };
                        let twice = life
                            .acknowledged
                            .insert(revision.parse().expect("a revision"), (key.clone(), value));
                        assert!(twice.is_none(), "revision {revision} was given twice");
                        Answer::Done
                    }
                    _ => Answer::Unknown,
                };
            }
            ["W", watcher, revision, key, value] => {
                let watcher: usize = watcher.parse().expect("a watcher");
                let change = (revision.parse().expect("a revision"), key.to_owned(), some(value));
                assert!(
                    change.0 > life.bookmark[watcher],
                    "a change comes after the bookmark that covers it"
                );
                life.seen[watcher].push(change);
            }
            ["B", watcher, revision] => {
                life.bookmark[watcher.parse::<usize>().expect("a watcher")] =
                    revision.parse().expect("a revision");
            }
            _ => {}
        }
    }
    life
}

/// Gives up to where this watcher has seen everything.
fn check_watch(
    life: &Life,
    watcher: usize,
    from: u64,
    changes: &mut BTreeMap<u64, (String, Option<String>)>,
) -> u64 {
    let mut at = from;
    for (revision, key, value) in &life.seen[watcher] {
        assert_eq!(*revision, at + 1, "watcher {watcher}: every change once, in order, none missing");
        at = *revision;
        let change = (key.clone(), value.clone());
        let known = changes.entry(at).or_insert_with(|| change.clone());
        assert_eq!(*known, change, "a change is the same for every watcher and in every life");
    }
    assert!(life.bookmark[watcher] <= at.max(from), "a bookmark is no promise of what did not come");
    for (revision, write) in life.acknowledged.range(..=at) {
        assert_eq!(&changes[revision], write, "what was acknowledged at {revision} is what watchers saw");
    }
    at
}

/// What one life said, with what the next one found. Gives the number of operations.
fn check_life(life: &Life, next: &Life) -> usize {
    let newest = life.acknowledged.keys().next_back().copied().unwrap_or(life.revision);
    assert!(
        next.revision >= newest,
        "revision {newest} was acknowledged, the store came back at {}",
        next.revision
    );
    let mut count = 0;
    for key in life.operations.keys().chain(life.first.keys()) {
        let mut history = life.operations.get(key).cloned().unwrap_or_default();
        count += history.len();
        // All that was under way is over when the store opens again.
        let end = usize::MAX;
        let found = Answer::Saw(next.first.get(key).cloned());
        history.push(Operation { ask: Ask::Read, answer: found, begun: end, ended: end });
        if let Err(why) = linearizable(life.first.get(key).cloned(), &history) {
            panic!("{key}: {why}");
        }
    }
    count
}
