//! What expressions come to, and what is said of those that are wrong.

use serde_json::{Value as Json, json};

use super::*;

struct Vars(Json, Type);

impl Variables for Vars {
    fn get(&self, name: &str) -> Option<Result<Value, Failure>> {
        (name == "self").then(|| Ok(Value::of_json(&self.0, &self.1)))
    }
}

fn self_type() -> Type {
    Type::object(
        "object",
        [
            ("n".to_owned(), Type::Int),
            ("s".to_owned(), Type::String(Some(100))),
            ("l".to_owned(), Type::List(Box::new(Type::String(Some(10))), Some(10))),
            ("m".to_owned(), Type::map(Type::string(), Type::Int)),
            ("any".to_owned(), Type::Dyn),
            ("o".to_owned(), Type::object("object.o", [("a".to_owned(), Type::Int)])),
            ("__namespace__".to_owned(), Type::string()),
        ],
    )
}

fn run(source: &str) -> String {
    let data = json!({"n": 3, "s": "abc", "l": ["a", "b"], "m": {"x": 1, "y": 2}, "any": {"k": [1, "2"]}, "namespace": "ns"});
    let program = match compile(source, &[("self", self_type())]) {
        Ok(p) => p,
        Err(e) => return e,
    };
    match program.run(&Vars(data, self_type()), 1_000_000).0 {
        Ok(v) => functions::print(&v),
        Err(e) => format!("error: {e}"),
    }
}

#[track_caller]
fn check(source: &str, expect: &str) {
    assert_eq!(run(source), expect, "{source}");
}

#[test]
fn values() {
    check("self.n + 1 == 4 && self.s.startsWith('a')", "true");
    check("self.n > 2.5", "true");
    check("has(self.n) && !has(self.o)", "true");
    check("self.__namespace__", "ns");
    check("self.o.a == 1", "error: no such key: o");
    check("self.o.a == 1 || true", "true");
    check("1 / 0", "error: division by zero");
    check("self.l[5]", "error: index out of bounds: 5");
    check("self.m['x'] + self.m['y']", "3");
    check("self.any.k[1]", "2");
    check("'a' in self.l && 'x' in self.m", "true");
    check("self.n == 3 ? 'yes' : 'no'", "yes");
    check("size(self.l) == 2 && self.s.size() == 3", "true");
    check("[1, 2] + [3]", "[1, 2, 3]");
    check("{'a': 1}.a", "1");
    check("-self.n", "-3");
    check("type(1) == int", "true");
    check("9223372036854775807 + 1", "error: integer overflow");
}

#[test]
fn macros() {
    check("self.l.all(x, x.size() == 1)", "true");
    check("self.l.exists(x, x == 'b')", "true");
    check("self.l.exists_one(x, x == 'b')", "true");
    check("self.l.map(x, x + '!')", "[a!, b!]");
    check("self.l.filter(x, x != 'a')", "[b]");
    check("self.l.map(x, x != 'a', x + '!')", "[b!]");
    check("self.m.all(k, self.m[k] > 0)", "true");
    check("self.l.all(i, v, i < 2 && v != '')", "true");
    check("self.l.transformList(i, v, v + string(i))", "[a0, b1]");
    check("self.m.transformMap(k, v, v * 2)['y']", "4");
    check("cel.bind(x, self.n * 2, x + x)", "12");
    check("self.?o.?a.orValue(7)", "7");
    check("self.?n.optMap(v, v + 1).value()", "4");
    check("optional.none().hasValue()", "false");
    check("self.any[?'zz'].hasValue()", "false");
    check("[?self.?o, ?self.?n]", "[3]");
}

#[test]
fn libraries() {
    check("'a,b'.split(',').join('-')", "a-b");
    check("'%s has %d, %.2f'.format(['x', 3, 1.5])", "x has 3, 1.50");
    check("'abc123'.find('[0-9]+')", "123");
    check("'a1b2'.findAll('[0-9]')", "[1, 2]");
    check("'tacocat'.substring(4) + 'x'.upperAscii()", "catX");
    check("'abc'.matches('^a.c$')", "true");
    check("[3, 1, 2].max() + [1, 2].sum()", "6");
    check("[1, 2, 3].isSorted()", "true");
    check("sets.contains([1, 2], [1])", "true");
    check("quantity('1Gi').isGreaterThan(quantity('1G'))", "true");
    check("quantity('200m').add(quantity('300m')) == quantity('500m')", "true");
    check("isQuantity('x')", "false");
    check("ip('10.0.0.1').family() == 4 && cidr('10.0.0.0/8').containsIP('10.1.2.3')", "true");
    check("isIP('::1') && ip('fe80::1').isLinkLocalUnicast()", "true");
    check("url('https://a.b:80/c?d=e').getHost()", "a.b:80");
    check("url('https://a.b:80/c?d=e').getQuery()['d'][0]", "e");
    check("semver('1.2.3').isLessThan(semver('1.10.0'))", "true");
    check("isSemver('v1.0', true) && !isSemver('v1.0')", "true");
    check("format.dns1123Label().validate('a_b').hasValue()", "true");
    check("!format.named('dns1123Label').value().validate('ab').hasValue()", "true");
    check("math.greatest(1, 2, 3) + math.abs(-1)", "4");
    check("duration('1h30m').getMinutes() == 90", "true");
    check("timestamp('2024-02-29T12:00:00Z').getMonth()", "1");
    check("timestamp('2024-02-29T12:00:00Z') + duration('12h') == timestamp('2024-03-01T00:00:00Z')", "true");
    check("base64.encode(b'hi')", "aGk=");
}

#[test]
fn what_is_wrong() {
    check("self.nope == 1", "ERROR: <input>:1:5: undefined field 'nope'\n | self.nope == 1\n | ....^");
    check("nope", "ERROR: <input>:1:1: undeclared reference to 'nope' (in container '')\n | nope\n | ^");
    check(
        "self.n == 'a'",
        "ERROR: <input>:1:8: found no matching overload for '_==_' applied to '(int, string)'\n | self.n == 'a'\n | .......^",
    );
    check(
        "self.s.contains(1)",
        "ERROR: <input>:1:16: found no matching overload for 'contains' applied to 'string.(int)'\n | self.s.contains(1)\n | ...............^",
    );
    assert!(run("self.n ==").starts_with("ERROR: <input>:1:10: Syntax error:"), "{}", run("self.n =="));
}

#[test]
fn costs() {
    let program =
        compile("self.l.all(x, self.l.all(y, x == y))", &[("self", self_type())]).expect("it compiles");
    assert!(program.max_cost > 100 && program.max_cost < 2000, "{}", program.max_cost);
    let open =
        compile("self.m.all(k, self.m.all(j, k == j))", &[("self", self_type())]).expect("it compiles");
    assert!(open.max_cost > 10_000_000_000, "{}", open.max_cost);
    let data = json!({"l": ["a", "a", "a"]});
    assert_eq!(program.run(&Vars(data, self_type()), 5).0.expect_err("it is too much"), Failure::Cost);
    assert!(program.uses("self") && !program.uses("oldSelf"));
}
