//! Random expressions: whatever the planner accepts, ClickHouse computes as we do.

use super::data::{Random, columns};
use super::oracle::{differences, plan};

const NUMBERS: &[&str] = &[
    "0",
    "1",
    "2",
    "7",
    "100",
    "255",
    "256",
    "65536",
    "4294967296",
    "18446744073709551615",
    "-1",
    "-3",
    "-128",
    "-129",
    "-40000",
    "0.5",
    "1.25",
    "-2.5",
    "1e3",
    "0.1",
];
const STRINGS: &[&str] = &["''", "'a'", "'Ab'", "'purchase'", "'12'", "'ü'", "'\\xff'", "'a%'", "'DE'"];
const PATTERNS: &[&str] =
    &["'%a%'", "'a%'", "'%b'", "'_'", "'%_a'", "'a_%'", "'%'", "''", "'%a%b'", "'p%e'", "'\\\\%'", "'%ü%'", "'_%_%'"];

/// Grows an expression; mostly of fitting types, now and then of any.
struct Grower {
    random: Random,
}

impl Grower {
    fn column(&mut self, prefixes: &[&str]) -> String {
        let names: Vec<&str> = columns()
            .iter()
            .map(|(name, _)| *name)
            .filter(|name| prefixes.iter().any(|prefix| name == prefix))
            .collect();
        self.random.pick(&names).to_owned()
    }

    fn any(&mut self, depth: usize) -> String {
        match self.random.below(5) {
            0 => self.string(depth),
            1 => self.condition(depth),
            2 => self.time(),
            _ => self.number(depth),
        }
    }

    fn number(&mut self, depth: usize) -> String {
        let leaf = depth == 0 || self.random.below(4) == 0;
        if leaf {
            return match self.random.below(3) {
                0 => self.random.pick(NUMBERS).to_owned(),
                _ => self.column(&[
                    "i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64", "f32", "f64", "d9", "d10", "d18", "d38",
                    "n64", "nf", "nd", "flag",
                ]),
            };
        }
        let below = depth - 1;
        match self.random.below(14) {
            0..=3 => {
                let operator = self.random.pick(&["+", "-", "*", "/"]);
                format!("({} {operator} {})", self.number(below), self.number(below))
            }
            4 => format!(
                "{}({}, {})",
                self.random.pick(&["intDiv", "modulo"]),
                self.number(below),
                self.random.pick(NUMBERS)
            ),
            5 => format!("abs({})", self.number(below)),
            6 => format!("-({})", self.number(below)),
            7 => format!("round({}, {})", self.number(below), self.random.below(5) as i32 - 2),
            8 => format!("if({}, {}, {})", self.condition(below), self.number(below), self.number(below)),
            9 => format!("coalesce({}, {})", self.number(below), self.number(below)),
            10 => format!("length({})", self.string(below)),
            11 => format!("{}({})", self.random.pick(&["toFloat64", "toInt64"]), self.number(below)),
            12 => format!(
                "{}({})",
                self.random.pick(&["toInt64OrZero", "toInt64OrNull", "toFloat64OrZero", "toFloat64OrNull"]),
                self.string(below)
            ),
            _ => format!("toDecimal64({}, {})", self.number(below), self.random.below(5)),
        }
    }

    fn string(&mut self, depth: usize) -> String {
        if depth == 0 || self.random.below(3) == 0 {
            return match self.random.below(4) {
                0 => self.random.pick(STRINGS).to_owned(),
                1 => format!("props[{}]", self.random.pick(&["'country'", "'plan'", "'none'", "lc", "s"])),
                _ => self.column(&["s", "lc", "ns", "nlc"]),
            };
        }
        let below = depth - 1;
        match self.random.below(7) {
            0 => format!("{}({})", self.random.pick(&["lower", "upper"]), self.string(below)),
            1 => format!("concat({}, {})", self.string(below), self.any(below)),
            // Offsets of 64 bits near their ends are errors in ClickHouse, and nowhere else.
            2 => format!("substring({}, {})", self.string(below), self.column(&["i8", "i16", "u32", "i32"])),
            3 => format!(
                "substring({}, {}, {})",
                self.string(below),
                self.random.pick(&["1", "-2", "i8"]),
                self.column(&["i8", "u8", "i32"])
            ),
            4 => format!("if({}, {}, {})", self.condition(below), self.string(below), self.string(below)),
            5 => format!("coalesce({}, {})", self.string(below), self.string(below)),
            _ => format!("toString({})", self.any(below)),
        }
    }

    fn condition(&mut self, depth: usize) -> String {
        if depth == 0 {
            return self.column(&["flag", "nb", "u8", "i8", "n64"]);
        }
        let below = depth - 1;
        let compare = |random: &mut Random| random.pick(&["=", "!=", "<", "<=", ">", ">="]).to_owned();
        match self.random.below(12) {
            0 | 1 => {
                let operator = compare(&mut self.random);
                format!("(({}) {operator} ({}))", self.number(below), self.number(below))
            }
            2 => {
                let operator = compare(&mut self.random);
                format!("({} {operator} {})", self.string(below), self.string(below))
            }
            3 => {
                let operator = compare(&mut self.random);
                format!("({} {operator} {})", self.time(), self.time())
            }
            4 => format!("({} {} {})", self.condition(below), self.random.pick(&["and", "or"]), self.condition(below)),
            5 => format!("(not {})", self.condition(below)),
            6 => format!("({} is {})", self.any(below), self.random.pick(&["null", "not null"])),
            7 if self.random.below(4) == 0 => {
                format!("({} ilike {})", self.column(&["s", "lc", "nlc"]), self.random.pick(PATTERNS))
            }
            7 => format!(
                "({} {} {})",
                self.string(below),
                self.random.pick(&["like", "not like"]),
                self.random.pick(PATTERNS)
            ),
            8 => {
                let list =
                    [self.random.pick(NUMBERS), self.random.pick(NUMBERS), self.random.pick(&["NULL", "3"])].join(", ");
                format!("(({}) {} ({list}))", self.number(below), self.random.pick(&["in", "not in"]))
            }
            9 => {
                let list = [self.random.pick(STRINGS), self.random.pick(STRINGS)].join(", ");
                format!("({} {} ({list}))", self.string(below), self.random.pick(&["in", "not in"]))
            }
            10 => format!(
                "{}({}, {})",
                self.random.pick(&["startsWith", "endsWith"]),
                self.string(below),
                self.string(below)
            ),
            // Of constants and of decimals, ClickHouse derives further comparisons, which can fail by themselves.
            _ => format!(
                "({} between {} and {})",
                self.column(&["i8", "i64", "u64", "f64", "n64"]),
                self.random.pick(NUMBERS),
                self.random.pick(NUMBERS)
            ),
        }
    }

    fn time(&mut self) -> String {
        match self.random.below(8) {
            0 => "'2020-01-01 12:00:00'".to_owned(),
            1 => "'2001-02-03'".to_owned(),
            2 => "toDate(ts)".to_owned(),
            3 => "toDate(d6, 'Asia/Tokyo')".to_owned(),
            _ => self.column(&["ts", "dt", "d6", "day", "nts"]),
        }
    }
}

/// Grows `count` expressions from a seed and compares those that the planner accepts.
fn check(seed: u64, count: usize) {
    let mut grower = Grower { random: Random(seed) };
    let mut planned = Vec::new();
    for _ in 0..count {
        let text = grower.any(3);
        if let Ok(expr) = plan(&text) {
            planned.push((text, expr));
        }
    }
    assert!(planned.len() > count / 5, "of {count} expressions the planner accepted only {}", planned.len());
    let found = differences(&planned);
    assert!(found.is_empty(), "seed {seed}: {} of {} differ:\n{}", found.len(), planned.len(), found.join("\n"));
}

#[test]
fn random_expressions_have_clickhouses_type_and_values() {
    let seed = std::env::var("WEIR_SEED").ok().and_then(|seed| seed.parse().ok());
    match seed {
        Some(seed) => check(seed, 4000),
        // `make proof` asks for more.
        None if std::env::var_os("WEIR_PROOF").is_some_and(|size| size == "full") => {
            (1..=20).for_each(|seed| check(seed, 4000));
        }
        None => check(1, 1500),
    }
}
