//! That what is built is found, and that a merge is as if all had been built at once.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// Pages in memory, and the words of each with their blocks as a writer was given them.
fn built(words: &[(String, u32)]) -> BTreeMap<Vec<u8>, BTreeSet<u32>> {
    let mut b = Builder::default();
    let mut sorted = words.to_vec();
    sorted.sort_by_key(|(_, block)| *block);
    sorted.iter().for_each(|(w, block)| b.add(w.as_bytes(), *block));
    let mut out = BTreeMap::new();
    let mut blocks = Vec::new();
    let mut last: Option<Vec<u8>> = None;
    for i in b.sorted() {
        let e = &b.words[i as usize];
        let mut word = Vec::new();
        b.word(e, &mut word);
        assert!(last.as_ref().is_none_or(|l| *l < word), "in order, each once");
        last = Some(word.clone());
        b.blocks(e, &mut blocks);
        assert!(blocks.is_sorted());
        out.insert(word, blocks.iter().copied().collect());
    }
    out
}

proptest! {
    #[test]
    fn words_and_their_blocks(words in prop::collection::vec(("[a-cA-C]{1,3}|[aAzZ@é_`{]{6,18}", 0u32..9), 0..80)) {
        let mut expect: BTreeMap<Vec<u8>, BTreeSet<u32>> = BTreeMap::new();
        for (w, b) in &words {
            expect.entry(w.to_ascii_lowercase().into_bytes()).or_default().insert(*b);
        }
        prop_assert_eq!(built(&words), expect);
    }
}

#[test]
fn capitals_are_made_small_eight_at_a_time() {
    for b in 0..=255u8 {
        let bytes = [b, b'A', b, b'z', 0, b, b'Z', b];
        let expect = bytes.map(|b| b.to_ascii_lowercase());
        assert_eq!(lower(u64::from_le_bytes(bytes)).to_le_bytes(), expect);
    }
    for n in 0..8u8 {
        let bytes: Vec<u8> = (1..=n).collect();
        let mut expect = [0; 8];
        expect[..bytes.len()].copy_from_slice(&bytes);
        assert_eq!(short(&bytes).to_le_bytes(), expect);
    }
}
