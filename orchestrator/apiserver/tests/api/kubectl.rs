//! The real kubectls against the real server: what is typed and what must be printed lie in `kubectl/*.script`.
//!
//! - `$ ARGS` is a command that must succeed, `! ARGS` one that must fail; `< LINE` is a line of its input, behind the
//!   command.
//! - The lines below are its output, standard error last: `[..]` stands for anything within a line, a line `...` for
//!   any lines.
//! - `> NAME` is a file in the directory where the commands run; its lines follow, as input's do. `crd` stands there too.
//! - `@ >=1.30 <1.35 ` before a command or a file keeps it for these kubectls, `>=1.33| ` before a line of output that
//!   line.
//! - Blank lines and lines that begin with `#` say nothing.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::cluster;

/// Those that the build fetches beside the newest.
const OLDER: [&str; 3] = ["kubectl-1.27", "kubectl-1.30", "kubectl-1.33"];

fn scripts_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/api/kubectl")
}

/// The kubectls to test with, or why there is none: that of `BINNACLE_KUBECTL`, or upstream's 1.33 beside the one in
/// `PATH`, and those that the build fetched.
fn kubectls() -> Result<Vec<PathBuf>, String> {
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
    let fetched = tools.iter().flat_map(|t| std::iter::once("kubectl").chain(OLDER).map(|k| t.join(k)));
    let others: Vec<PathBuf> = fetched.filter(|p| p.is_file() && *p != first).collect();
    Ok(std::iter::once(first).chain(others).collect())
}

/// Major and minor, as in `1.33`.
type Version = (u32, u32);

fn version(text: &str) -> Option<Version> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn version_of(kubectl: &Path) -> Version {
    let out = Command::new(kubectl).args(["version", "--client", "-o", "json"]).output();
    let said: Value = serde_json::from_slice(&out.expect("kubectl starts").stdout).expect("its version");
    let part = |name: &str| said["clientVersion"][name].as_str().unwrap_or_default().to_owned();
    version(&format!("{}.{}", part("major"), part("minor").trim_end_matches('+'))).expect("a version")
}

/// Which kubectls a line is for: at least the one version, below the other.
#[derive(Clone, Copy, Default)]
struct Condition {
    from: Option<Version>,
    below: Option<Version>,
}

impl Condition {
    /// The conditions that a text begins with, and what follows them.
    fn of(text: &str) -> (Condition, &str) {
        let (mut condition, mut rest) = (Condition::default(), text);
        loop {
            let end = rest.find([' ', '|']).unwrap_or(rest.len());
            let (word, more) = rest.split_at(end);
            if let Some(v) = word.strip_prefix(">=").and_then(version) {
                condition.from = Some(v);
            } else if let Some(v) = word.strip_prefix('<').and_then(version) {
                condition.below = Some(v);
            } else {
                return (condition, rest);
            }
            rest = more.strip_prefix(' ').unwrap_or(more);
        }
    }

    fn holds(self, version: Version) -> bool {
        self.from.is_none_or(|f| version >= f) && self.below.is_none_or(|b| version < b)
    }
}

enum Step {
    File { name: String },
    Run { succeeds: bool, args: Vec<String> },
}

struct Case {
    line: usize,
    step: Step,
    /// Of the command or the file.
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

/// What a script says to one kubectl.
fn parse(text: &str, version: Version) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    let mut meant = true;
    for (i, line) in text.lines().enumerate() {
        let (condition, said) = line.strip_prefix("@ ").map_or((Condition::default(), line), Condition::of);
        let run = |succeeds, args| Step::Run { succeeds, args: words(args) };
        let begins = said
            .strip_prefix("$ ")
            .map(|args| run(true, args))
            .or_else(|| said.strip_prefix("! ").map(|args| run(false, args)))
            .or_else(|| said.strip_prefix("> ").map(|name| Step::File { name: name.trim_end().to_owned() }));
        if let Some(step) = begins {
            meant = condition.holds(version);
            if meant {
                cases.push(Case { line: i + 1, step, input: String::new(), expect: Vec::new() });
            }
            continue;
        }
        assert!(!line.starts_with("@ "), "line {}: no command behind the condition", i + 1);
        let Some(case) = cases.last_mut().filter(|_| meant) else { continue };
        if let Some(input) = line.strip_prefix("< ").or((line == "<").then_some("")) {
            case.input.push_str(input);
            case.input.push('\n');
        } else if !line.trim().is_empty() && !line.starts_with('#') {
            assert!(matches!(case.step, Step::Run { .. }), "line {}: a file prints nothing", i + 1);
            let (condition, rest) = Condition::of(line);
            match rest.strip_prefix('|') {
                Some(rest) if condition.holds(version) => {
                    case.expect.push(rest.strip_prefix(' ').unwrap_or(rest).trim_end().to_owned());
                }
                Some(_) => {}
                None => case.expect.push(line.trim_end().to_owned()),
            }
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

fn run(kubectl: &Path, home: &Path, args: &[String], input: &str) -> (bool, String) {
    let mut child = Command::new(kubectl)
        .args(args)
        .current_dir(home.join("files"))
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
    match std::io::Write::write_all(&mut stdin, input.as_bytes()) {
        // It need not read what it is given: a refused flag ends it before.
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => panic!("its input: {e}"),
        _ => drop(stdin),
    }
    let out = child.wait_with_output().expect("kubectl ends");
    let text = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    (out.status.success(), text)
}

fn play(name: &str, text: &str, kubectl: &Path, home: &Path) -> Vec<String> {
    let mut failures = Vec::new();
    for case in parse(text, version_of(kubectl)) {
        let (succeeds, args) = match &case.step {
            Step::Run { succeeds, args } => (*succeeds, args),
            Step::File { name } => {
                let path = home.join("files").join(name);
                std::fs::create_dir_all(path.parent().expect("its directory")).expect("a directory");
                std::fs::write(path, &case.input).expect("a file");
                continue;
            }
        };
        let (succeeded, said) = run(kubectl, home, args, &case.input);
        let got: Vec<&str> = said.lines().map(str::trim_end).filter(|l| !l.trim().is_empty()).collect();
        if succeeded != succeeds || !matches(&case.expect, &got) {
            failures.push(format!(
                "{name}.script:{}: {} {}\n  ended well: {succeeded}\n{said}",
                case.line,
                kubectl.display(),
                args.join(" ")
            ));
        }
    }
    failures
}

async fn script(name: &'static str) {
    let kubectls = match kubectls() {
        Ok(k) => k,
        Err(why) => {
            panic!("the real kubectl is missing: {why}; install kubectl 1.33 or set BINNACLE_KUBECTL")
        }
    };
    let text = std::fs::read_to_string(scripts_dir().join(format!("{name}.script"))).expect("the script");
    let mut failures = Vec::new();
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
        std::fs::create_dir_all(c.path.join("files")).expect("a directory");
        std::os::unix::fs::symlink(scripts_dir().with_file_name("crd"), c.path.join("files/crd"))
            .expect("a link");
        let (home, text) = (c.path.clone(), text.clone());
        let played = tokio::task::spawn_blocking(move || play(name, &text, &kubectl, &home));
        failures.extend(played.await.expect("the commands ran"));
        c.stop.cancel();
        tokio::time::timeout(Duration::from_secs(10), serving)
            .await
            .expect("it stops")
            .expect("no panic")
            .expect("no error");
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

macro_rules! scripts {
    ($($name:ident)*) => {
        /// Those that have a test, which they must to run beside each other.
        const SCRIPTS: &[&str] = &[$(stringify!($name)),*];
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                script(stringify!($name)).await;
            }
        )*
    };
}

scripts!(read write apply create access certificate discovery kinds custom core generic apps rbac);

#[test]
fn every_script_has_its_test() {
    let files = std::fs::read_dir(scripts_dir()).expect("the scripts").map(|e| e.expect("an entry").path());
    let mut found: Vec<String> = files
        .filter(|p| p.extension().is_some_and(|e| e == "script"))
        .map(|p| p.file_stem().expect("a name").to_string_lossy().into_owned())
        .collect();
    found.sort();
    let mut named = SCRIPTS.to_vec();
    named.sort_unstable();
    assert_eq!(found, named);
}

#[test]
fn conditions_choose_among_versions() {
    let text =
        "> f\n< x\n$ a\none\n<1.33| two\n>=1.33 <1.35| three\n<none>\n@ >=1.30 ! b\nfour\n@ <1.30 $ c\n";
    let check = |minor: u32, expect: &[&[&str]]| {
        let cases = parse(text, (1, minor));
        assert!(matches!(&cases[0].step, Step::File { name } if name == "f"));
        assert_eq!(cases[0].input, "x\n");
        let runs: Vec<_> = cases[1..].iter().map(|c| c.expect.clone()).collect();
        assert_eq!(runs, expect, "1.{minor}");
    };
    check(27, &[&["one", "two", "<none>"], &[]]);
    check(30, &[&["one", "two", "<none>"], &["four"]]);
    check(33, &[&["one", "three", "<none>"], &["four"]]);
    check(35, &[&["one", "<none>"], &["four"]]);
}

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
