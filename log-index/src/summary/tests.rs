//! That an entry comes back as it was written.

use super::*;

#[test]
fn entries_round_trip() {
    let mut e = Entry { start: -5, end: 900, blocks: vec![0, 3, 70_000], ..Entry::default() };
    e.add_stream(1, 2, 0);
    e.add_stream(1, 1, 1);
    e.add_stream(9, 4, 0);
    e.add_root(Root { is_root: false, start: 1, stream: 1, name: "first".into() });
    e.add_root(Root { is_root: true, start: 2, stream: 9, name: "root".into() });
    e.add_root(Root { is_root: false, start: 0, stream: 1, name: "earlier".into() });
    assert_eq!(e.streams, [(1, 3, 1), (9, 4, 0)]);
    assert_eq!(e.root.as_ref().map(|r| r.name.as_str()), Some("root"));
    let mut out = Vec::new();
    e.put(&mut out);
    assert_eq!(Entry::get(&mut out.as_slice()), Some(e));
    for cut in 0..out.len() {
        assert_eq!(Entry::get(&mut &out[..cut]), None);
    }
}
