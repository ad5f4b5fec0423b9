//! Is a history of one key linearizable? Wing and Gong's search with Lowe's memory of what was tried.
//!
//! The model is a register with compare-and-set: values are unique, so a value names the write that made it.

use std::collections::HashSet;

/// What was asked of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    Read,
    /// Write this where nothing is.
    Create(String),
    /// Write the second where the first is.
    Swap(String, String),
    /// Delete where this is.
    Delete(String),
}

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// What a read saw.
    Saw(Option<String>),
    Done,
    /// The key did not stand as the write wanted; it did not happen.
    Refused,
    /// None, or "outcome unknown": it may have happened or not.
    Unknown,
}

/// One operation: begun and answered at these moments of one common order.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    pub(crate) ask: Ask,
    pub(crate) answer: Answer,
    pub(crate) begun: usize,
    pub(crate) ended: usize,
}

/// Whether there is an order of the operations, each at a moment between its beginning and its end, in which a
/// register that begins with `first` would have answered as it did. The error names what could not be placed.
pub(crate) fn linearizable(first: Option<String>, history: &[Operation]) -> Result<(), String> {
    let mut tried: HashSet<(Vec<u64>, Option<String>)> = HashSet::new();
    let mut placed = vec![0u64; history.len().div_ceil(64)];
    let mut best = 0;
    if search(first, history, &mut placed, 0, &mut tried, &mut best) {
        return Ok(());
    }
    Err(format!(
        "no order explains these {} operations (at most {best} of them): {history:#?}",
        history.len()
    ))
}

fn search(
    state: Option<String>,
    history: &[Operation],
    placed: &mut Vec<u64>,
    count: usize,
    tried: &mut HashSet<(Vec<u64>, Option<String>)>,
    best: &mut usize,
) -> bool {
    *best = (*best).max(count);
    let is_placed = |placed: &[u64], i: usize| placed[i / 64] >> (i % 64) & 1 == 1;
    let open = || history.iter().enumerate().filter(|(i, _)| !is_placed(placed, *i));
    // What ended first must come before whatever begins after that end.
    let answered = open().filter(|(_, o)| o.answer != Answer::Unknown);
    let Some(limit) = answered.map(|(_, o)| o.ended).min() else { return true };
    if !tried.insert((placed.clone(), state.clone())) {
        return false;
    }
    let candidates: Vec<usize> = open().filter(|(_, o)| o.begun <= limit).map(|(i, _)| i).collect();
    for i in candidates {
        if let Some(after) = outcomes(&state, &history[i]) {
            placed[i / 64] |= 1 << (i % 64);
            let found = search(after, history, placed, count + 1, tried, best);
            placed[i / 64] &= !(1 << (i % 64));
            if found {
                return true;
            }
        }
    }
    false
}

/// The states a register may be in after an operation at this point; none if it would have answered otherwise.
/// An unanswered operation that did nothing need not be placed at all.
fn outcomes(state: &Option<String>, o: &Operation) -> Option<Option<String>> {
    let (stands, after) = match &o.ask {
        Ask::Read => (true, state.clone()),
        Ask::Create(v) => (state.is_none(), Some(v.clone())),
        Ask::Swap(old, new) => (state.as_ref() == Some(old), Some(new.clone())),
        Ask::Delete(old) => (state.as_ref() == Some(old), None),
    };
    match &o.answer {
        Answer::Saw(seen) => (seen == state).then(|| state.clone()),
        Answer::Done | Answer::Unknown => stands.then_some(after),
        Answer::Refused => (!stands).then(|| state.clone()),
    }
}

fn op(ask: Ask, answer: Answer, begun: usize, ended: usize) -> Operation {
    Operation { ask, answer, begun, ended }
}

fn create(v: &str) -> Ask {
    Ask::Create(v.to_owned())
}

fn swap(old: &str, new: &str) -> Ask {
    Ask::Swap(old.to_owned(), new.to_owned())
}

fn saw(v: &str) -> Answer {
    Answer::Saw((!v.is_empty()).then(|| v.to_owned()))
}

#[test]
fn good_histories_are_good() {
    let check = |first: &str, history: &[Operation]| {
        let first = (!first.is_empty()).then(|| first.to_owned());
        linearizable(first, history).expect("linearizable");
    };
    check("", &[]);
    check("a", &[op(Ask::Read, saw("a"), 0, 1)]);
    // A read beside a write may see either.
    check("a", &[op(swap("a", "b"), Answer::Done, 0, 3), op(Ask::Read, saw("a"), 1, 2)]);
    check("a", &[op(swap("a", "b"), Answer::Done, 0, 3), op(Ask::Read, saw("b"), 1, 2)]);
    // An unanswered write may have happened, late or never.
    check(
        "a",
        &[
            op(swap("a", "b"), Answer::Unknown, 0, 9),
            op(Ask::Read, saw("a"), 1, 2),
            op(Ask::Read, saw("b"), 3, 4),
        ],
    );
    check("a", &[op(swap("a", "b"), Answer::Unknown, 0, 9), op(Ask::Read, saw("a"), 1, 2)]);
    // Of two creations at once one is refused.
    check("", &[op(create("x"), Answer::Refused, 0, 2), op(create("y"), Answer::Done, 1, 3)]);
    check("a", &[op(Ask::Delete("a".to_owned()), Answer::Done, 0, 1), op(create("b"), Answer::Done, 2, 3)]);
    // Refused because an unanswered one came first.
    check("a", &[op(swap("a", "b"), Answer::Unknown, 0, 9), op(swap("a", "c"), Answer::Refused, 1, 2)]);
}

#[test]
fn bad_histories_are_found() {
    let check = |first: &str, history: &[Operation]| {
        let first = (!first.is_empty()).then(|| first.to_owned());
        linearizable(first, history).expect_err("not linearizable");
    };
    // Stale read.
    check("a", &[op(swap("a", "b"), Answer::Done, 0, 1), op(Ask::Read, saw("a"), 2, 3)]);
    // Lost write.
    check("", &[op(create("a"), Answer::Done, 0, 1), op(Ask::Read, saw(""), 2, 3)]);
    // Two swaps from the same value.
    check("a", &[op(swap("a", "b"), Answer::Done, 0, 5), op(swap("a", "c"), Answer::Done, 1, 4)]);
    // Seen, then unseen.
    check(
        "a",
        &[
            op(swap("a", "b"), Answer::Unknown, 0, 9),
            op(Ask::Read, saw("b"), 1, 2),
            op(Ask::Read, saw("a"), 3, 4),
        ],
    );
    // Refused without a reason.
    check("a", &[op(swap("a", "b"), Answer::Refused, 0, 1)]);
    // Out of nowhere.
    check("a", &[op(Ask::Read, saw("z"), 0, 1)]);
    // It came back.
    check("a", &[op(Ask::Delete("a".to_owned()), Answer::Done, 0, 1), op(Ask::Read, saw("a"), 2, 3)]);
}
