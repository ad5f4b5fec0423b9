//! The runner itself; the scripts are run by `tests/scripts.rs`.

use super::*;

#[test]
fn what_is_wrong_is_said() {
    let check = |script: &str, expect: &str| {
        let r = run(script).expect(script);
        assert_eq!((r.passed, r.failed), (0, 1), "{script}");
        assert!(r.failures[0].contains(expect), "{:?} has no {expect}", r.failures);
    };
    let load = "load\n  {app=\"a\"}\n    0s..10s/5s \"line {{i}}\" n=1\n";
    for (eval, expect) in [
        ("eval log from 0 to 1m {app=\"a\"}\n  0s \"line 0\"\n  5s \"line 1\"", "unexpected {"),
        ("eval log from 0 to 1m {app=\"a\"}\n  0s \"other\"", "is missing"),
        ("eval log from 0 to 1m {app=\"a\"}\n  expect lines 2", "expected 2 lines, got 3"),
        ("eval log from 0 to 1m {app=\"a\"\n  expect lines 2", "failed: parse error"),
        ("eval log from 0 to 1m {app=\"a\"}\n  expect fail", "should have failed"),
        ("eval instant at 10s count_over_time({app=\"a\"}[1m])\n  {app=\"a\"} 4", "got {app=\"a\"} 3"),
        ("eval instant at 10s vector(1)\n  1", "got series"),
        ("eval instant at 10s 1\n  2", "got the scalar 1"),
    ] {
        check(&format!("{load}{eval}"), expect);
    }
    for script in [
        "nothing",
        "load\n  0s \"x\"",
        "eval instant rate",
        "eval log from x to y {}",
        "load\n  {a=\"b\"}\n  0s x",
    ] {
        assert!(run(script).is_err(), "{script}");
    }
}
