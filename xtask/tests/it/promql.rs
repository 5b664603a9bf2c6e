//! Reads out of a PromQL expression which series it asks for. Whether it is valid at all
//! is for Prometheus to say.

/// What is asked for by one selector.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Selector {
    pub(crate) name: String,
    /// Label, operator, value.
    pub(crate) matchers: Vec<[String; 3]>,
    /// As in `5m`, without what follows a colon.
    pub(crate) range: Option<String>,
    /// The function or aggregation right around it.
    pub(crate) within: String,
}

/// What an expression reads.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Expression {
    pub(crate) selectors: Vec<Selector>,
    /// The labels that series are grouped or joined by.
    pub(crate) labels: Vec<String>,
}

const OPERATORS: [&str; 7] = ["and", "or", "unless", "bool", "offset", "inf", "nan"];
const GROUPINGS: [&str; 6] = [
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "group_right",
];

pub(crate) fn read(text: &str) -> Expression {
    let mut found = Expression::default();
    let mut rest = text;
    // What each open parenthesis belongs to.
    let mut around: Vec<String> = Vec::new();
    // Whether what comes next may belong to the last selector.
    let mut is_open = false;
    while let Some(first) = rest.chars().next() {
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':' || c == '.';
        match first {
            '"' => {
                rest = quoted(rest).1;
                is_open = false;
            }
            '{' => {
                let (matchers, after) = matchers(rest);
                match found.selectors.last_mut() {
                    Some(selector) if is_open => selector.matchers = matchers,
                    _ => panic!("a selector without a name in {text}"),
                }
                rest = after;
            }
            '[' => {
                let (range, after) = rest[1..].split_once(']').expect("a range ends");
                if let (Some(selector), true) = (found.selectors.last_mut(), is_open) {
                    selector.range = Some(range.to_owned());
                }
                rest = after;
                is_open = false;
            }
            '(' => {
                around.push(String::new());
                rest = &rest[1..];
                is_open = false;
            }
            ')' => {
                around.pop();
                rest = &rest[1..];
                is_open = false;
            }
            c if c.is_ascii_digit() => {
                rest = rest.trim_start_matches(is_word);
                is_open = false;
            }
            c if is_word(c) => {
                let after = rest.trim_start_matches(is_word);
                let word = &rest[..rest.len() - after.len()];
                let next = after.trim_start();
                rest = after;
                is_open = false;
                if GROUPINGS.contains(&word) {
                    let Some(list) = next.strip_prefix('(') else {
                        continue;
                    };
                    let (list, after) = list.split_once(')').expect("a list of labels ends");
                    let labels = list.split(',').map(|label| label.trim().to_owned());
                    found
                        .labels
                        .extend(labels.filter(|label| !label.is_empty()));
                    rest = after;
                    // An aggregation whose labels come before what it aggregates.
                    if let Some(inner) = rest.trim_start().strip_prefix('(') {
                        around.push("aggregation".to_owned());
                        rest = inner;
                    }
                } else if let Some(inner) = next.strip_prefix('(') {
                    around.push(word.to_owned());
                    rest = inner;
                } else if GROUPINGS.iter().any(|by| {
                    next.strip_prefix(by)
                        .is_some_and(|list| list.trim_start().starts_with('('))
                }) || OPERATORS.contains(&word.to_ascii_lowercase().as_str())
                {
                    // `sum by (..)`: the parenthesis behind it is its own.
                } else {
                    found.selectors.push(Selector {
                        name: word.to_owned(),
                        within: around.last().cloned().unwrap_or_default(),
                        ..Selector::default()
                    });
                    is_open = true;
                }
            }
            c if c.is_whitespace() => rest = rest.trim_start(),
            c => {
                rest = &rest[c.len_utf8()..];
                is_open = false;
            }
        }
    }
    found
}

/// What stands between quotes at the beginning, and what follows.
fn quoted(text: &str) -> (&str, &str) {
    text[1..]
        .split_once('"')
        .expect("a string ends, and holds no quote")
}

fn matchers(text: &str) -> (Vec<[String; 3]>, &str) {
    let mut rest = text[1..].trim_start();
    let mut matchers = Vec::new();
    while !rest.starts_with('}') {
        let at = rest
            .find(['=', '!'])
            .expect("a label is followed by an operator");
        let (label, tail) = rest.split_at(at);
        let quote = tail.find('"').expect("a value stands between quotes");
        let (value, after) = quoted(&tail[quote..]);
        matchers.push([label.trim(), tail[..quote].trim_end(), value].map(str::to_owned));
        rest = after.trim_start().trim_start_matches(',').trim_start();
    }
    (matchers, &rest[1..])
}

#[test]
fn an_expression_is_read_down_to_its_selectors() {
    let found = read(
        r#"sum by (region, le) (rate(a_bucket{route="x|}",code!~"5.."}[5m])) / on (region) group_left
           max(avg_over_time((b > bool 60)[5m:15s])) or 0 * c{shard=~"s.*"} and vector(1e3)"#,
    );
    let selector =
        |name: &str, within: &str, range: Option<&str>, matchers: &[[&str; 3]]| Selector {
            name: name.to_owned(),
            matchers: matchers.iter().map(|m| m.map(str::to_owned)).collect(),
            range: range.map(str::to_owned),
            within: within.to_owned(),
        };
    let of_a = [["route", "=", "x|}"], ["code", "!~", "5.."]];
    let expected = [
        selector("a_bucket", "rate", Some("5m"), &of_a),
        selector("b", "", None, &[]),
        selector("c", "", None, &[["shard", "=~", "s.*"]]),
    ];
    assert_eq!(found.selectors, expected);
    assert_eq!(found.labels, ["region", "le", "region"]);
}
