//! File patterns as Go's `filepath.Glob` has them: `*`, `?` and `[a-z]` within one part of a path.

use std::path::{Component, Path, PathBuf};

use regex::Regex;

/// Files that fit, sorted; a pattern without a star is a file if it is there.
pub(super) fn glob(pattern: &Path) -> Result<Vec<PathBuf>, String> {
    let mut found = vec![PathBuf::new()];
    for part in pattern.components() {
        let text = part.as_os_str().to_string_lossy();
        if !matches!(part, Component::Normal(_)) || !text.contains(['*', '?', '[', '\\']) {
            found.iter_mut().for_each(|p| p.push(part));
            continue;
        }
        let re = translate(&text).map_err(|_| "syntax error in pattern".to_owned())?;
        let mut next = Vec::new();
        for dir in found {
            let at = if dir.as_os_str().is_empty() { Path::new(".") } else { &dir };
            // As Go has it: what cannot be read holds nothing that fits.
            let Ok(entries) = std::fs::read_dir(at) else { continue };
            let names = entries.filter_map(|e| e.ok()?.file_name().into_string().ok());
            let mut names: Vec<String> = names.filter(|n| re.is_match(n)).collect();
            names.sort();
            next.extend(names.into_iter().map(|n| dir.join(n)));
        }
        found = next;
    }
    found.retain(|p| std::fs::symlink_metadata(p).is_ok());
    Ok(found)
}

fn translate(pattern: &str) -> Result<Regex, regex::Error> {
    let mut out = String::from("^(?s:");
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match c {
            '*' => out.push_str(".*"),
            '?' => out.push('.'),
            '[' => {
                out.push('[');
                for c in chars.by_ref() {
                    if c == '[' || c == '&' || c == '~' {
                        out.push('\\');
                    }
                    out.push(c);
                    if c == ']' {
                        break;
                    }
                }
            }
            '\\' => out.extend(chars.next().map(|c| regex::escape(&c.to_string()))),
            c => out.push_str(&regex::escape(&c.to_string())),
        }
    }
    Regex::new(&(out + ")$"))
}
