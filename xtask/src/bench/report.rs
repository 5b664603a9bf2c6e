//! What a benchmark found: a table for people, JSON for programs.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::cpu::Spent;
use super::machine::Machine;
use super::subject::{Turn, spread};
use super::turns::Spread;
use crate::Error;

/// Of the JSON.
const FORMAT: u32 = 1;

/// What is to be reached.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

/// A figure that has one.
#[derive(Debug)]
pub(crate) struct Goal {
    pub(crate) what: &'static str,
    /// `x` for a ratio.
    pub(crate) unit: &'static str,
    pub(crate) bound: Bound,
    pub(crate) seen: Spread,
}

/// A figure of both sides, or of ours alone.
#[derive(Debug)]
pub(crate) struct Figure {
    what: &'static str,
    unit: &'static str,
    ours: Spread,
    yardstick: Option<Spread>,
}

/// Everything that one benchmark found.
#[derive(Debug)]
pub(crate) struct Report {
    name: &'static str,
    goals: Vec<Goal>,
    figures: Vec<Figure>,
    notes: Vec<String>,
}

impl Goal {
    fn is_met(&self) -> bool {
        match self.bound {
            Bound::AtMost(bound) => self.seen.median <= bound,
            Bound::AtLeast(bound) => self.seen.median >= bound,
        }
    }

    fn bound_text(&self) -> String {
        let (word, bound) = match self.bound {
            Bound::AtMost(bound) => ("at most", bound),
            Bound::AtLeast(bound) => ("at least", bound),
        };
        format!("{word} {} {}", digits(bound), self.unit)
    }
}

impl Report {
    pub(crate) fn new(name: &'static str) -> Self {
        Self {
            name,
            goals: Vec::new(),
            figures: Vec::new(),
            notes: Vec::new(),
        }
    }

    pub(crate) fn goal(&mut self, goal: Goal) {
        self.goals.push(goal);
    }

    pub(crate) fn compared(
        &mut self,
        what: &'static str,
        unit: &'static str,
        ours: Spread,
        yardstick: Spread,
    ) {
        self.figures.push(Figure {
            what,
            unit,
            ours,
            yardstick: Some(yardstick),
        });
    }

    pub(crate) fn figure(&mut self, what: &'static str, unit: &'static str, ours: Spread) {
        self.figures.push(Figure {
            what,
            unit,
            ours,
            yardstick: None,
        });
    }

    pub(crate) fn note(&mut self, text: String) {
        self.notes.push(text);
    }

    /// What every turn of ours has.
    pub(crate) fn turns(&mut self, turns: &[Turn]) {
        let mut micros = |what, of: fn(&Spent) -> Duration| {
            self.figure(what, "us", spread(turns, |turn| turn.micros(of)));
        };
        micros("CPU per request, gateways", |spent| spent.gateways);
        micros("CPU per request, shard-nodes", |spent| spent.shard_nodes);
        micros("CPU per request, keygen and consumers", |spent| {
            spent.others
        });
        micros("CPU per request, all our programs", Spent::ours);
        micros("CPU per request, Redis", |spent| spent.redis);
        micros("CPU per request, the shards' Postgres", |spent| {
            spent.postgres
        });
        let mut each = |what, unit, of: fn(&Turn) -> f64| {
            self.figure(what, unit, spread(turns, of));
        };
        each("p50, closed loop", "ms", |turn| turn.answered.p50_ms);
        each("p99, closed loop", "ms", |turn| turn.answered.p99_ms);
        each("share of L1 hits", "", |turn| {
            turn.counts.share(turn.counts.l1_hits)
        });
        each("share of Redis hits", "", |turn| {
            turn.counts.share(turn.counts.redis_hits)
        });
        if turns.iter().any(|turn| turn.counts.read_statements > 0.0) {
            each("links read by one statement", "", |turn| {
                turn.counts.reads / turn.counts.read_statements.max(1.0)
            });
        }
        if turns.iter().any(|turn| turn.counts.recorded > 0.0) {
            each("share of clicks that the broker has", "", |turn| {
                turn.counts.acked / turn.counts.recorded
            });
        }
        let sum = |of: fn(&Turn) -> f64| turns.iter().map(of).sum::<f64>();
        self.note(format!(
            "clicks of all turns: {} recorded, {} spooled, {} acknowledged by the broker, {} lost, \
             {} of them for want of room in memory",
            sum(|turn| turn.counts.recorded),
            sum(|turn| turn.counts.spooled),
            sum(|turn| turn.counts.acked),
            sum(|turn| turn.counts.lost),
            sum(|turn| turn.counts.lost_in_buffer),
        ));
    }

    /// Prints the table and writes the JSON.
    pub(crate) fn publish(
        &self,
        machine: &Machine,
        options: &Value,
        file: &Path,
    ) -> Result<(), Error> {
        print!("{}", self.text());
        let failed = |error| Error::Step(format!("{} cannot be written: {error}", file.display()));
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder).map_err(failed)?;
        }
        let text = format!("{:#}\n", self.json(machine, options));
        fs::write(file, text).map_err(failed)?;
        eprintln!("xtask: wrote {}", file.display());
        Ok(())
    }

    fn text(&self) -> String {
        let mut text = format!("{}\n", self.name);
        for goal in &self.goals {
            let (seen, bound) = (reading(&goal.seen, goal.unit), goal.bound_text());
            let verdict = if goal.is_met() { "met" } else { "MISSED" };
            text += &format!("  goal  {:<44} {seen:<38} {bound}: {verdict}\n", goal.what);
        }
        for figure in &self.figures {
            let ours = reading(&figure.ours, figure.unit);
            let yardstick = figure.yardstick.as_ref();
            let yardstick = yardstick.map(|spread| reading(spread, figure.unit));
            text += &match yardstick {
                Some(yardstick) => {
                    format!(
                        "        {:<44} {ours:<38} yardstick {yardstick}\n",
                        figure.what
                    )
                }
                None => format!("        {:<44} {ours}\n", figure.what),
            };
        }
        for note in &self.notes {
            text += &format!("        {note}\n");
        }
        text
    }

    fn json(&self, machine: &Machine, options: &Value) -> Value {
        let goals = self.goals.iter().map(|goal| {
            let (kind, bound) = match goal.bound {
                Bound::AtMost(bound) => ("atMost", bound),
                Bound::AtLeast(bound) => ("atLeast", bound),
            };
            json!({
                "what": goal.what,
                "unit": goal.unit,
                kind: bound,
                "seen": spread_json(&goal.seen),
                "met": goal.is_met(),
            })
        });
        let figures = self.figures.iter().map(|figure| {
            json!({
                "what": figure.what,
                "unit": figure.unit,
                "ours": spread_json(&figure.ours),
                "yardstick": figure.yardstick.as_ref().map(spread_json),
            })
        });
        json!({
            "format": FORMAT,
            "name": self.name,
            "options": options,
            "machine": machine.json(),
            "goals": goals.collect::<Value>(),
            "figures": figures.collect::<Value>(),
            "notes": self.notes,
        })
    }
}

fn spread_json(spread: &Spread) -> Value {
    json!({"median": spread.median, "min": spread.min, "max": spread.max})
}

fn reading(spread: &Spread, unit: &str) -> String {
    let median = digits(spread.median);
    if spread.min == spread.max {
        return format!("{median} {unit}").trim_end().to_owned();
    }
    let (min, max) = (digits(spread.min), digits(spread.max));
    let gap = if unit.is_empty() { "" } else { " " };
    format!("{median}{gap}{unit} ({min} .. {max})")
}

/// As many digits as say something: three, and all of those before the point.
fn digits(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn goal(bound: Bound, median: f64) -> Goal {
        Goal {
            what: "rate, to the yardstick's",
            unit: "x",
            bound,
            seen: Spread {
                median,
                min: 0.5,
                max: 2.0,
            },
        }
    }

    #[test]
    fn a_goal_is_met_by_the_median() {
        assert!(goal(Bound::AtMost(1.0), 1.0).is_met());
        assert!(!goal(Bound::AtMost(1.0), 1.01).is_met());
        assert!(goal(Bound::AtLeast(1.5), 1.5).is_met());
        assert!(!goal(Bound::AtLeast(1.5), 1.4).is_met());
        // What could not be measured meets nothing.
        assert!(!goal(Bound::AtMost(1.0), f64::NAN).is_met());
    }

    #[test]
    fn a_table_shows_both_sides_and_the_verdict() {
        let mut report = Report::new("redirect-hot");
        report.goal(goal(Bound::AtMost(1.0), 1.25));
        let (ours, theirs) = (Spread::once(12_345.6), Spread::once(9.87));
        report.compared("redirects", "1/s", ours, theirs);
        let text = report.text();
        for expected in [
            "1.25 x (0.500 .. 2.00)",
            "at most 1.00 x: MISSED",
            "12346 1/s",
            "yardstick 9.87 1/s",
        ] {
            assert!(text.contains(expected), "{text}");
        }
    }
}
