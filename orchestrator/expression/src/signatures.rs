//! The functions there are: a line each, as `TARGET.name(ARGUMENTS) RESULT`
//! (cel-spec: doc/langdef.md; kubernetes: staging/src/k8s.io/apiserver/pkg/cel/library).

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::types::Type;

/// A pattern of types; letters are variables.
#[derive(Clone, Debug)]
pub(crate) enum Pattern {
    Is(Type),
    Variable(char),
    List(Box<Pattern>),
    Map(Box<Pattern>, Box<Pattern>),
    Optional(Box<Pattern>),
}

#[derive(Debug)]
pub(crate) struct Signature {
    pub(crate) target: Option<Pattern>,
    pub(crate) args: Vec<Pattern>,
    pub(crate) result: Pattern,
}

const TEXT: &str = "
_&&_(bool,bool) bool|_||_(bool,bool) bool|!_(bool) bool|_?_:_(bool,A,A) A
_==_(A,A) bool|_!=_(A,A) bool
_<_(A,A) bool|_<=_(A,A) bool|_>_(A,A) bool|_>=_(A,A) bool
-_(int) int|-_(double) double
_+_(int,int) int|_+_(uint,uint) uint|_+_(double,double) double|_+_(string,string) string|_+_(bytes,bytes) bytes
_+_(list<A>,list<A>) list<A>|_+_(duration,duration) duration|_+_(timestamp,duration) timestamp|_+_(duration,timestamp) timestamp
_-_(int,int) int|_-_(uint,uint) uint|_-_(double,double) double|_-_(duration,duration) duration
_-_(timestamp,duration) timestamp|_-_(timestamp,timestamp) duration
_*_(int,int) int|_*_(uint,uint) uint|_*_(double,double) double
_/_(int,int) int|_/_(uint,uint) uint|_/_(double,double) double|_%_(int,int) int|_%_(uint,uint) uint
_[_](list<A>,int) A|_[_](map<A,B>,A) B|_[?_](list<A>,int) optional<A>|_[?_](map<A,B>,A) optional<B>
_[_](optional<list<A>>,int) optional<A>|_[_](optional<map<A,B>>,A) optional<B>
_[?_](optional<list<A>>,int) optional<A>|_[?_](optional<map<A,B>>,A) optional<B>
@in(A,list<A>) bool|@in(A,map<A,B>) bool
size(string) int|size(bytes) int|size(list<A>) int|size(map<A,B>) int
string.size() int|bytes.size() int|list<A>.size() int|map<A,B>.size() int
int(dyn) int|uint(dyn) uint|double(dyn) double|string(dyn) string|bytes(dyn) bytes|bool(dyn) bool|dyn(dyn) dyn|type(dyn) type
duration(string) duration|duration(duration) duration|duration(int) duration
timestamp(string) timestamp|timestamp(timestamp) timestamp|timestamp(int) timestamp
timestamp.getFullYear() int|timestamp.getMonth() int|timestamp.getDate() int|timestamp.getDayOfMonth() int
timestamp.getDayOfWeek() int|timestamp.getDayOfYear() int|timestamp.getHours() int|timestamp.getMinutes() int
timestamp.getSeconds() int|timestamp.getMilliseconds() int
timestamp.getFullYear(string) int|timestamp.getMonth(string) int|timestamp.getDate(string) int
timestamp.getDayOfMonth(string) int|timestamp.getDayOfWeek(string) int|timestamp.getDayOfYear(string) int
timestamp.getHours(string) int|timestamp.getMinutes(string) int|timestamp.getSeconds(string) int|timestamp.getMilliseconds(string) int
duration.getHours() int|duration.getMinutes() int|duration.getSeconds() int|duration.getMilliseconds() int
string.contains(string) bool|string.startsWith(string) bool|string.endsWith(string) bool|string.matches(string) bool|matches(string,string) bool
string.charAt(int) string|string.indexOf(string) int|string.indexOf(string,int) int|string.lastIndexOf(string) int|string.lastIndexOf(string,int) int
string.lowerAscii() string|string.upperAscii() string|string.replace(string,string) string|string.replace(string,string,int) string
string.split(string) list<string>|string.split(string,int) list<string>|string.substring(int) string|string.substring(int,int) string
string.trim() string|list<string>.join() string|list<string>.join(string) string|string.format(list<dyn>) string|string.reverse() string
strings.quote(string) string|base64.encode(bytes) string|base64.decode(string) bytes
string.find(string) string|string.findAll(string) list<string>|string.findAll(string,int) list<string>
list<A>.isSorted() bool|list<A>.sum() A|list<A>.min() A|list<A>.max() A|list<A>.indexOf(A) int|list<A>.lastIndexOf(A) int
list<A>.distinct() list<A>|list<A>.slice(int,int) list<A>|list<list<A>>.flatten() list<A>|list<A>.reverse() list<A>|list<A>.sort() list<A>|lists.range(int) list<int>
list<A>.first() optional<A>|list<A>.last() optional<A>
sets.contains(list<A>,list<A>) bool|sets.equivalent(list<A>,list<A>) bool|sets.intersects(list<A>,list<A>) bool
math.greatest(A) A|math.greatest(A,A) A|math.greatest(A,A,A) A|math.least(A) A|math.least(A,A) A|math.least(A,A,A) A
math.abs(A) A|math.ceil(double) double|math.floor(double) double|math.round(double) double|math.trunc(double) double|math.sign(A) A|math.sqrt(dyn) double
math.isNaN(double) bool|math.isInf(double) bool|math.isFinite(double) bool
math.bitAnd(int,int) int|math.bitOr(int,int) int|math.bitXor(int,int) int
optional.of(A) optional<A>|optional.none() optional<A>|optional.ofNonZeroValue(A) optional<A>
optional<A>.hasValue() bool|optional<A>.value() A|optional<A>.orValue(A) A|optional<A>.or(optional<A>) optional<A>
url(string) url|isURL(string) bool|url.getScheme() string|url.getHost() string|url.getHostname() string|url.getPort() string
url.getEscapedPath() string|url.getQuery() map<string,list<string>>
quantity(string) quantity|isQuantity(string) bool|quantity.sign() int|quantity.isInteger() bool|quantity.asInteger() int
quantity.asApproximateFloat() double|quantity.add(quantity) quantity|quantity.add(int) quantity|quantity.sub(quantity) quantity|quantity.sub(int) quantity
quantity.isLessThan(quantity) bool|quantity.isGreaterThan(quantity) bool|quantity.compareTo(quantity) int
ip(string) ip|isIP(string) bool|ip.isCanonical(string) bool|ip.family() int|ip.isUnspecified() bool|ip.isLoopback() bool
ip.isLinkLocalMulticast() bool|ip.isLinkLocalUnicast() bool|ip.isGlobalUnicast() bool
cidr(string) cidr|isCIDR(string) bool|cidr.containsIP(ip) bool|cidr.containsIP(string) bool|cidr.containsCIDR(cidr) bool|cidr.containsCIDR(string) bool
cidr.ip() ip|cidr.masked() cidr|cidr.prefixLength() int
semver(string) semver|semver(string,bool) semver|isSemver(string) bool|isSemver(string,bool) bool|semver.major() int|semver.minor() int|semver.patch() int
semver.isLessThan(semver) bool|semver.isGreaterThan(semver) bool|semver.compareTo(semver) int
format.named(string) optional<format>|format.validate(string) optional<list<string>>
format.dns1123Label() format|format.dns1123Subdomain() format|format.dns1035Label() format|format.qualifiedName() format|format.labelValue() format
format.dns1123LabelPrefix() format|format.dns1123SubdomainPrefix() format|format.dns1035LabelPrefix() format
format.uri() format|format.uuid() format|format.byte() format|format.date() format|format.datetime() format
authorizer.path(string) pathcheck|authorizer.group(string) groupcheck|authorizer.serviceAccount(string,string) authorizer|authorizer.requestResource() resourcecheck
pathcheck.check(string) decision|groupcheck.resource(string) resourcecheck|resourcecheck.subresource(string) resourcecheck
resourcecheck.namespace(string) resourcecheck|resourcecheck.name(string) resourcecheck|resourcecheck.check(string) decision
resourcecheck.fieldSelector(string) resourcecheck|resourcecheck.labelSelector(string) resourcecheck
decision.allowed() bool|decision.reason() string|decision.errored() bool|decision.error() string
";

/// The names of libraries' types.
pub(crate) fn opaque(word: &str) -> Option<&'static str> {
    Some(match word {
        "url" => "kubernetes.URL",
        "quantity" => "kubernetes.Quantity",
        "ip" => "net.IP",
        "cidr" => "net.CIDR",
        "semver" => "kubernetes.Semver",
        "format" => "kubernetes.NamedFormat",
        "authorizer" => "kubernetes.authorization.Authorizer",
        "pathcheck" => "kubernetes.authorization.PathCheck",
        "groupcheck" => "kubernetes.authorization.GroupCheck",
        "resourcecheck" => "kubernetes.authorization.ResourceCheck",
        "decision" => "kubernetes.authorization.Decision",
        _ => return None,
    })
}

fn pattern(s: &str) -> Pattern {
    let s = s.trim();
    if let Some(inner) = s.strip_prefix("list<").and_then(|r| r.strip_suffix('>')) {
        return Pattern::List(Box::new(pattern(inner)));
    }
    if let Some(inner) = s.strip_prefix("optional<").and_then(|r| r.strip_suffix('>')) {
        return Pattern::Optional(Box::new(pattern(inner)));
    }
    if let Some((k, v)) =
        s.strip_prefix("map<").and_then(|r| r.strip_suffix('>')).and_then(|r| r.split_once(','))
    {
        return Pattern::Map(Box::new(pattern(k)), Box::new(pattern(v)));
    }
    Pattern::Is(match s {
        "dyn" => Type::Dyn,
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::string(),
        "bytes" => Type::Bytes(None),
        "duration" => Type::Duration,
        "timestamp" => Type::Timestamp,
        "type" => Type::Type,
        s => match opaque(s) {
            Some(name) => Type::Opaque(name),
            None => return Pattern::Variable(s.chars().next().unwrap_or('?')),
        },
    })
}

/// Splits at commas outside of `<>`.
fn commas(s: &str) -> Vec<&str> {
    let (mut depth, mut start, mut out) = (0, 0, Vec::new());
    for (i, c) in s.char_indices() {
        match c {
            '<' => depth += 1,
            '>' => depth -= 1,
            ',' if depth == 0 => {
                out.push(&s[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    out.push(&s[start..]);
    out.retain(|p| !p.trim().is_empty());
    out
}

/// Functions whose dot belongs to their name.
const SPACES: [&str; 7] = ["strings", "base64", "sets", "math", "optional", "lists", "cel"];

/// All functions by name.
pub(crate) static FUNCTIONS: LazyLock<HashMap<String, Vec<Signature>>> = LazyLock::new(|| {
    let mut out: HashMap<String, Vec<Signature>> = HashMap::new();
    for text in TEXT.lines().flat_map(split_bars).filter(|t| !t.is_empty()) {
        let open = text.rfind('(').expect("a signature has arguments");
        let close = text.rfind(')').expect("a signature has arguments");
        let (head, args, result) = (&text[..open], &text[open + 1..close], &text[close + 1..]);
        // `optional.of`, `format.named` and `ip.isCanonical` are names; `list<A>.size` has a target.
        let named = head.split_once('.').is_some_and(|(first, last)| {
            SPACES.contains(&first) || matches!((first, last), ("format", n) if n == "named" || n.starts_with("dns") || !matches!(n, "validate"))
                || (first, last) == ("ip", "isCanonical")
        });
        let (target, name) = match head.rsplit_once('.') {
            Some((t, n)) if !named && !head.starts_with('_') => (Some(pattern(t)), n),
            _ => (None, head),
        };
        out.entry(name.to_owned()).or_default().push(Signature {
            target,
            args: commas(args).into_iter().map(pattern).collect(),
            result: pattern(result),
        });
    }
    out
});

/// Splits at bars, but for those of `_||_`.
fn split_bars(line: &str) -> Vec<&str> {
    let mut out = Vec::new();
    let mut rest = line;
    while let Some(at) = rest.find('|') {
        let at = if rest[at..].starts_with("||") && rest[..at].ends_with('_') {
            match rest[at + 2..].find('|') {
                Some(next) => at + 2 + next,
                None => break,
            }
        } else {
            at
        };
        out.push(&rest[..at]);
        rest = &rest[at + 1..];
    }
    out.push(rest);
    out
}
