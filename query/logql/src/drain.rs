//! Patterns of lines: what stays the same in lines of one kind, with `<_>` for what does not (the Drain algorithm:
//! He et al., "Drain: An Online Log Parsing Approach with Fixed Depth Tree", ICWS 2017).
//!
//! Lines are grouped by their number of words and their first word; within a group a line joins the pattern it is
//! most like, if half of the words agree, and words that differ become variable.

use std::collections::{BTreeMap, HashMap};

/// Patterns kept; a line that would make one more is counted as rare instead.
const PATTERNS: usize = 300;
/// Words of a line that are looked at.
const WORDS: usize = 80;
/// Share of words that must agree.
const ALIKE: f64 = 0.5;

pub const VARIABLE: &str = "<_>";

/// A pattern with what was counted of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Pattern {
    pub text: String,
    /// Lines by bucket, as given to [`Drain::add`].
    pub counts: BTreeMap<i64, u64>,
    pub total: u64,
}

struct Cluster {
    /// `None` is variable.
    words: Vec<Option<String>>,
    counts: BTreeMap<i64, u64>,
    /// When its first line came and its last.
    first: i64,
    last: i64,
}

/// Patterns of one number of words and, by its text, one first word.
type Group = HashMap<Box<str>, Vec<Cluster>>;

#[derive(Default)]
pub struct Drain {
    groups: HashMap<usize, Group>,
    patterns: usize,
    /// Lines of patterns that found no place.
    pub rare: u64,
}

/// A word of a line.
#[derive(Clone, Copy)]
enum Word<'a> {
    Constant(&'a str),
    /// A name and a separator; what it names is variable.
    Named(&'a str),
    Variable,
}

impl Word<'_> {
    fn is(self, known: &Option<String>) -> bool {
        match (self, known) {
            (Word::Constant(w), Some(known)) => w == known,
            (Word::Named(name), Some(known)) => known.strip_suffix(VARIABLE) == Some(name),
            (Word::Variable, None) => true,
            _ => false,
        }
    }

    /// `None` is variable.
    fn to_owned(self) -> Option<String> {
        match self {
            Word::Constant(w) => Some(w.to_owned()),
            Word::Named(name) => Some(format!("{name}{VARIABLE}")),
            Word::Variable => None,
        }
    }
}

/// Words that tell one line from the next: numbers, ids, addresses, times. Punctuation around them stays.
fn constant(word: &str) -> Word<'_> {
    let digits = word.bytes().any(|b| b.is_ascii_digit());
    let hex = || word.len() >= 8 && word.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    if !digits && !hex() {
        return Word::Constant(word);
    }
    // `key=123` and `"key":123` keep what they are called.
    let Some(separator) = word.rfind(['=', ':']) else { return Word::Variable };
    let named = separator > 0 && !word.bytes().take(separator).any(|b| b.is_ascii_digit());
    match word.get(..=separator).filter(|_| named) {
        Some(name) => Word::Named(name),
        None => Word::Variable,
    }
}

impl Drain {
    pub fn add(&mut self, line: &str, bucket: i64) {
        self.add_many(line, bucket, 1, bucket);
    }

    /// A line that stands for several, and its time.
    pub(crate) fn add_many(&mut self, line: &str, bucket: i64, lines: u64, at: i64) {
        let words: Vec<Word<'_>> = line.split_whitespace().take(WORDS).map(constant).collect();
        let Some(first) = words.first() else { return };
        let named;
        let key = match first {
            Word::Constant(w) => *w,
            Word::Named(name) => {
                named = format!("{name}{VARIABLE}");
                &named
            }
            Word::Variable => VARIABLE,
        };
        let all = self.groups.entry(words.len()).or_default();
        let group = match all.get_mut(key) {
            Some(group) => group,
            None => all.entry(key.into()).or_default(),
        };
        let agree = |c: &Cluster| c.words.iter().zip(&words).filter(|(a, b)| b.is(a)).count();
        let best = group.iter_mut().map(|c| (agree(c), c)).max_by_key(|(n, _)| *n);
        match best {
            Some((n, c)) if n as f64 >= ALIKE * words.len() as f64 => {
                for (known, new) in c.words.iter_mut().zip(words) {
                    if !new.is(known) {
                        *known = None;
                    }
                }
                *c.counts.entry(bucket).or_default() += lines;
                (c.first, c.last) = (c.first.min(at), c.last.max(at));
            }
            _ if self.patterns < PATTERNS => {
                self.patterns += 1;
                let counts = BTreeMap::from([(bucket, lines)]);
                let words = words.into_iter().map(Word::to_owned).collect();
                group.push(Cluster { words, counts, first: at, last: at });
            }
            _ => self.rare += lines,
        }
    }

    /// How many patterns there are.
    pub(crate) fn len(&self) -> usize {
        self.patterns
    }

    /// Lets go of counts before a bucket, and of patterns that have none left.
    pub(crate) fn forget(&mut self, before: i64) {
        self.groups.retain(|_, all| {
            all.retain(|_, group| {
                group.retain_mut(|c| {
                    c.counts.retain(|at, _| *at >= before);
                    !c.counts.is_empty()
                });
                !group.is_empty()
            });
            !all.is_empty()
        });
        self.patterns = self.clusters().count();
        self.rare = 0;
    }

    fn clusters(&self) -> impl Iterator<Item = &Cluster> {
        self.groups.values().flat_map(HashMap::values).flatten()
    }

    /// Each pattern with the time of its first line and of its last.
    pub(crate) fn snapshot(&self) -> Vec<(Pattern, i64, i64)> {
        let mut by_text: BTreeMap<String, (BTreeMap<i64, u64>, i64, i64)> = BTreeMap::new();
        for c in self.clusters() {
            let mut words: Vec<&str> = c.words.iter().map(|w| w.as_deref().unwrap_or(VARIABLE)).collect();
            // Several variable words in a row read as one.
            words.dedup_by(|a, b| *a == VARIABLE && *b == VARIABLE);
            let e = by_text.entry(words.join(" ")).or_insert_with(|| (BTreeMap::new(), i64::MAX, i64::MIN));
            (e.1, e.2) = (e.1.min(c.first), e.2.max(c.last));
            for (bucket, n) in &c.counts {
                *e.0.entry(*bucket).or_default() += n;
            }
        }
        by_text
            .into_iter()
            .map(|(text, (counts, first, last))| {
                (Pattern { text, total: counts.values().sum(), counts }, first, last)
            })
            .collect()
    }

    /// Most frequent first.
    pub fn patterns(self) -> Vec<Pattern> {
        let mut out: Vec<Pattern> = self.snapshot().into_iter().map(|(p, _, _)| p).collect();
        out.sort_by(|a, b| b.total.cmp(&a.total).then_with(|| a.text.cmp(&b.text)));
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mined(lines: &[&str]) -> Vec<(String, u64)> {
        let mut d = Drain::default();
        lines.iter().for_each(|l| d.add(l, 0));
        d.patterns().into_iter().map(|p| (p.text, p.total)).collect()
    }

    #[test]
    fn lines_of_one_kind_are_one_pattern() {
        let own = |p: &[(&str, u64)]| p.iter().map(|(t, n)| ((*t).to_owned(), *n)).collect::<Vec<_>>();
        assert_eq!(
            mined(&["GET /cart took 12 ms", "GET /cart took 9 ms", "GET /stock took 10 ms", "disk is full"]),
            own(&[("GET <_> took <_> ms", 3), ("disk is full", 1)])
        );
        assert_eq!(
            mined(&["level=info user=7 msg=in", "level=info user=8 msg=in"]),
            own(&[("level=info user=<_> msg=in", 2)])
        );
        assert_eq!(
            mined(&["request 4bf92f3577b34da6 done", "request deadbeefcafebabe done"]),
            own(&[("request <_> done", 2)])
        );
        assert_eq!(mined(&["", "   "]), []);
    }

    #[test]
    fn patterns_are_bounded_and_counted_by_bucket() {
        let mut d = Drain::default();
        // Letters only, so that nothing is taken for a number; every line has another first word.
        let word = |mut n: usize| {
            let mut w = String::from("w");
            while n > 0 {
                w.push(char::from(b'g' + (n % 16) as u8));
                n /= 16;
            }
            w
        };
        for i in 0..400 {
            d.add(&format!("{} happened", word(i)), (i % 2) as i64);
        }
        assert_eq!(d.rare, 100);
        let mut d = Drain::default();
        (0..10).for_each(|i| d.add("tick tock", i / 5));
        let p = d.patterns();
        assert_eq!(p.first().map(|p| p.counts.clone()), Some(BTreeMap::from([(0, 5), (1, 5)])));
    }
}
