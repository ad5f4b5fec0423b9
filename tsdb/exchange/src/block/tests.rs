//! Blocks as `promtool tsdb create-blocks-from openmetrics` writes them; skipped aloud where it is not installed.

use std::process::Command;

use super::*;

/// A block of genuine make: two series of 300 samples, the histogram's buckets among them.
fn blocks(dir: &Path) -> Option<Vec<PathBuf>> {
    let mut text = String::from("# TYPE a gauge\n");
    for i in 0..300 {
        text += &format!("a{{x=\"é\\n\"}} {} {}\n", f64::from(i) * 0.5, 1_700_000_000 + i * 15);
    }
    for i in 0..300 {
        text += &format!("a{{x=\"two\"}} {i} {}\n", 1_700_000_000 + i * 15);
    }
    text += "# EOF\n";
    let input = dir.join("in.om");
    std::fs::write(&input, text).expect("written");
    let out = dir.join("blocks");
    let ran = Command::new("promtool")
        .args(["tsdb", "create-blocks-from", "openmetrics", "-q"])
        .arg(&input)
        .arg(&out)
        .output();
    let ran = match ran {
        Ok(ran) => ran,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return None,
        Err(e) => panic!("promtool: {e}"),
    };
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let mut found: Vec<PathBuf> =
        std::fs::read_dir(&out).expect("blocks").map(|e| e.expect("an entry").path()).collect();
    found.retain(|p| Block::is_at(p));
    Some(found)
}

#[test]
fn genuine_blocks_are_read_and_damage_is_seen() {
    let dir = tempfile::tempdir().expect("a directory");
    let Some(found) = blocks(dir.path()) else {
        println!("skipped: promtool is not installed (Debian: prometheus)");
        return;
    };
    let mut all: HashMap<Labels, Vec<(i64, f64)>> = HashMap::new();
    for path in &found {
        let b = Block::open(path).expect("a block");
        for s in b.iter() {
            let s = s.expect("a series");
            all.entry(s.labels).or_default().extend(s.timestamps.iter().copied().zip(s.values));
        }
    }
    assert_eq!(all.len(), 2);
    for (labels, mut samples) in all {
        samples.sort_by_key(|s| s.0);
        let factor = if labels.get("x") == Some("é\n") { 0.5 } else { 1.0 };
        let want: Vec<(i64, f64)> =
            (0..300).map(|i| (1_700_000_000_000 + i * 15_000, i as f64 * factor)).collect();
        assert_eq!(samples, want, "{labels}");
    }
    // Any changed byte of index or chunks is seen, or changes nothing; nothing panics.
    let path = found.first().expect("a block");
    for name in ["index", "chunks/000001"] {
        let file = path.join(name);
        let good = std::fs::read(&file).expect("read");
        for at in (0..good.len()).step_by(7) {
            let mut bad = good.clone();
            bad[at] ^= 0x55;
            std::fs::write(&file, &bad).expect("written");
            if let Ok(b) = Block::open(path) {
                b.iter().for_each(drop);
            }
        }
        std::fs::write(&file, &good[..good.len() / 2]).expect("written");
        let cut = Block::open(path).map(|b| b.iter().collect::<Result<Vec<_>, _>>());
        assert!(!matches!(cut, Ok(Ok(_))), "{name} is cut and read all the same");
        std::fs::write(&file, &good).expect("written");
    }
}
