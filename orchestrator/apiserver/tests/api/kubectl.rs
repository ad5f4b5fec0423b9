//! The real kubectl against the real server: what is typed and what must be printed lie in `kubectl/*.script`.
//!
//! `$ ARGS` is a command that must succeed, `! ARGS` one that must fail; `< LINE` is a line of its input, behind the
//! command. The lines below are its output: `[..]` stands for anything within a line, a line `...` for any lines.
//! Blank lines and lines that begin with `#` say nothing.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;

use crate::cluster;

/// Older kubectls, and the scripts that they print something else for, or have no words for yet.
const OLDER: [(&str, &[&str]); 3] = [
    ("1.27", &["access", "certificate", "discovery", "rbac", "read", "write"]),
    ("1.30", &["discovery", "read"]),
    ("1.33", &[]),
];

/// The kubectls to test with, or why there is none: that of `BINNACLE_KUBECTL`, or upstream's 1.33 beside the one in
/// `PATH`, and those that the build fetched.
fn kubectls(script: &str) -> Result<Vec<PathBuf>, String> {
    let given = std::env::var_os("BINNACLE_KUBECTL").map(PathBuf::from);
    let first = match given {
        Some(p) => p,
        None => {
            let path = std::env::var_os("PATH").unwrap_or_default();
            let plain = std::env::split_paths(&path).map(|d| d.join("kubectl")).find(|p| p.is_file());
            let plain = plain.ok_or("no kubectl in PATH and BINNACLE_KUBECTL is not set")?;
            let real = std::fs::canonicalize(&plain).map_err(|e| e.to_string())?;
            let beside = real.with_file_name("kubectl.1.33");
            if beside.is_file() { beside } else { real }
        }
    };
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let tools = target.map(|t| t.join("tools"));
    let newest = tools.as_ref().map(|t| t.join("kubectl"));
    let older = OLDER.iter().filter(|(_, not)| !not.contains(&script));
    let older = older.flat_map(|(v, _)| tools.as_ref().map(|t| t.join(format!("kubectl-{v}"))));
    let others: Vec<PathBuf> =
        newest.into_iter().chain(older).filter(|p| p.is_file() && *p != first).collect();
    Ok(std::iter::once(first).chain(others).collect())
}

struct Case {
    line: usize,
    succeeds: bool,
    args: Vec<String>,
    input: String,
    expect: Vec<String>,
}

/// Words as a shell would take them apart: quotes keep blanks.
fn words(text: &str) -> Vec<String> {
    let (mut out, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in text.chars() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, ' ') => out.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    out.extend(word);
    out
}

fn parse(text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for (i, line) in text.lines().enumerate() {
        let begins =
            line.strip_prefix("$ ").map(|a| (true, a)).or(line.strip_prefix("! ").map(|a| (false, a)));
        match (begins, cases.last_mut()) {
            (Some((succeeds, args)), _) => cases.push(Case {
                line: i + 1,
                succeeds,
                args: words(args),
                input: String::new(),
                expect: Vec::new(),
            }),
            (None, Some(case)) if line.starts_with("< ") => {
                case.input.push_str(&line[2..]);
                case.input.push('\n');
            }
            (None, Some(case)) if !line.trim().is_empty() && !line.starts_with('#') => {
                case.expect.push(line.trim_end().to_owned());
            }
            _ => {}
        }
    }
    cases
}

fn line_matches(expect: &str, got: &str) -> bool {
    let mut parts = expect.split("[..]");
    let Some(mut rest) = parts.next().and_then(|first| got.strip_prefix(first)) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

fn matches(expect: &[String], got: &[&str]) -> bool {
    match expect.split_first() {
        None => got.is_empty(),
        Some((any, rest)) if any == "..." => (0..=got.len()).any(|skip| matches(rest, &got[skip..])),
        Some((first, rest)) => {
            got.split_first().is_some_and(|(g, more)| line_matches(first, g) && matches(rest, more))
        }
    }
}

fn run(kubectl: &Path, home: &Path, case: &Case) -> (bool, String) {
    let mut child = Command::new(kubectl)
        .args(&case.args)
        .env("HOME", home)
        .env("KUBECONFIG", home.join("kubeconfig"))
        // Edits as people do, with a program.
        .env("KUBE_EDITOR", "sed -i s/before/after/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("kubectl starts");
    let mut stdin = child.stdin.take().expect("its stdin");
    std::io::Write::write_all(&mut stdin, case.input.as_bytes()).expect("written");
    drop(stdin);
    let out = child.wait_with_output().expect("kubectl ends");
    let text = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    (out.status.success(), text)
}

async fn script(name: &'static str, text: &'static str) {
    let kubectls = match kubectls(name) {
        Ok(k) => k,
        Err(why) => {
            panic!("the real kubectl is missing: {why}; install kubectl 1.33 or set BINNACLE_KUBECTL")
        }
    };
    for kubectl in kubectls {
        let c = cluster().await;
        c.account().await;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let serving = telemetry::task::spawn("serve", c.server.clone().serve(listener, c.stop.clone()));
        std::fs::write(c.path.join("ca.crt"), c.server.pki().ca_pem()).expect("the CA");
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "t",
            "clusters": [{"name": "t", "cluster": {"server": format!("https://127.0.0.1:{port}"), "certificate-authority": "ca.crt"}}],
            "users": [{"name": "t", "user": {"token": "secret"}}],
            "contexts": [{"name": "t", "context": {"cluster": "t", "user": "t"}}],
        });
        std::fs::write(c.path.join("kubeconfig"), kubeconfig.to_string()).expect("the kubeconfig");
        let home = c.path.clone();
        let failures = tokio::task::spawn_blocking(move || {
            let mut failures = Vec::new();
            for case in parse(text) {
                let (succeeded, said) = run(&kubectl, &home, &case);
                let got: Vec<&str> =
                    said.lines().map(str::trim_end).filter(|l| !l.trim().is_empty()).collect();
                if succeeded != case.succeeds || !matches(&case.expect, &got) {
                    failures.push(format!(
                        "{name}.script:{}: {} {}\n  ended well: {succeeded}\n{said}",
                        case.line,
                        kubectl.display(),
                        case.args.join(" ")
                    ));
                }
            }
            failures
        })
        .await
        .expect("the commands ran");
        assert!(failures.is_empty(), "{}", failures.join("\n"));
        c.stop.cancel();
        tokio::time::timeout(Duration::from_secs(10), serving)
            .await
            .expect("it stops")
            .expect("no panic")
            .expect("no error");
    }
}

macro_rules! scripts {
    ($($name:ident)*) => { $(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            script(stringify!($name), include_str!(concat!("kubectl/", stringify!($name), ".script"))).await;
        }
    )* };
}

scripts!(read write apply create access certificate discovery kinds custom core generic apps rbac);

#[test]
fn lines_match_as_said() {
    let check =
        |expect: &str, got: &str, is: bool| assert_eq!(line_matches(expect, got), is, "{expect} {got}");
    check("a b", "a b", true);
    check("a[..]c", "a b c", true);
    check("a[..]c", "a b c d", false);
    check("[..]b[..]", "a b c", true);
    check("a", "ab", false);
    let lines = |l: &[&str]| l.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
    assert!(matches(&lines(&["a", "...", "d"]), &["a", "b", "c", "d"]));
    assert!(!matches(&lines(&["a", "...", "d"]), &["a", "b"]));
    assert_eq!(
        words(r#"patch x -p '{"a": "b"}' -l "c d""#),
        ["patch", "x", "-p", r#"{"a": "b"}"#, "-l", "c d"]
    );
}
