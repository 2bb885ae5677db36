//! The table: medians over the rounds, and of the ratios also the lowest and the highest.

use std::fmt::Write as _;

use crate::results::{Function, Group, Results, SUBJECT};

/// The results as a Markdown table, one line for each floor.
#[must_use]
pub fn markdown(results: &Results) -> String {
    let mut table =
        "| Measured | Times the floor | HVM | Floor | The floor is |\n|---|--:|--:|--:|---|\n".to_owned();
    for group in &results.groups {
        let subject = group.functions.iter().find(|function| function.name == SUBJECT);
        let (Some(subject), name) = (subject, &group.name) else { continue };
        let ours = group.amount(subject);
        let floors: Vec<_> = group.functions.iter().filter(|function| function.name != SUBJECT).collect();
        for floor in &floors {
            let (ratio, amount) = (ratios(subject, floor), group.amount(floor));
            line(&mut table, [name, &ratio, &ours, &amount, &floor.name]);
        }
        if floors.is_empty() {
            line(&mut table, [name, "–", &ours, "–", "–"]);
        }
    }
    table
}

fn line(table: &mut String, cells: [&str; 5]) {
    writeln!(table, "| {} |", cells.join(" | ")).expect("writing to a string");
}

impl Group {
    /// A function's median: a rate where the group counts things, else a time.
    fn amount(&self, function: &Function) -> String {
        let Some(nanoseconds) = median(function.rounds.values().copied()) else { return "–".to_owned() };
        match self.elements {
            Some(elements) => format!("{} /s", grouped(elements * 1e9 / nanoseconds)),
            None => time(nanoseconds),
        }
    }
}

/// Ours over the floor: the median of the rounds, in brackets the lowest and the highest.
fn ratios(subject: &Function, floor: &Function) -> String {
    let ratios = subject.rounds.iter().filter_map(|(round, ours)| Some(ours / floor.rounds.get(round)?));
    let mut ratios: Vec<f64> = ratios.collect();
    ratios.sort_by(f64::total_cmp);
    match (median(ratios.iter().copied()), ratios.as_slice()) {
        (None, _) => "–".to_owned(),
        (Some(median), [lowest, .., highest]) => {
            format!("**{}** ({}–{})", ratio(median), ratio(*lowest), ratio(*highest))
        }
        (Some(median), _) => format!("**{}**", ratio(median)),
    }
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() % 2 {
        1 => Some(values[middle]),
        _ => Some(f64::midpoint(*values.get(middle.checked_sub(1)?)?, values[middle])),
    }
}

fn ratio(ratio: f64) -> String {
    if ratio < 9.95 { format!("{ratio:.1}") } else { format!("{ratio:.0}") }
}

/// Nanoseconds in the unit that fits, three digits.
fn time(nanoseconds: f64) -> String {
    let units = [(1e9, "s"), (1e6, "ms"), (1e3, "µs")];
    let (size, unit) = units.into_iter().find(|(size, _)| nanoseconds >= *size).unwrap_or((1.0, "ns"));
    let amount = nanoseconds / size;
    match amount {
        ..9.995 => format!("{amount:.2} {unit}"),
        ..99.95 => format!("{amount:.1} {unit}"),
        _ => format!("{amount:.0} {unit}"),
    }
}

/// A whole number with its thousands apart, rounded to three digits: more are noise.
fn grouped(number: f64) -> String {
    let step = 10_f64.powf((number.max(1.0).log10().floor() - 2.0).max(0.0));
    let digits = format!("{:.0}", (number / step).round() * step);
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(name: &str, rounds: &[f64]) -> Function {
        let rounds = rounds.iter().enumerate().map(|(at, time)| (format!("round-{at}"), *time)).collect();
        Function { name: name.to_owned(), rounds }
    }

    #[test]
    fn a_floor_makes_a_line_with_the_median_of_the_ratios_of_each_round() {
        let functions =
            vec![function(SUBJECT, &[300.0, 100.0, 4000.0]), function("bare", &[100.0, 100.0, 1000.0])];
        let times = Group { name: "a query".to_owned(), elements: None, functions };
        let functions = vec![function(SUBJECT, &[2e6])];
        let rates = Group { name: "commits".to_owned(), elements: Some(1000.0), functions };
        let table = markdown(&Results { groups: vec![times, rates] });
        let lines: Vec<&str> = table.lines().skip(2).collect();
        assert_eq!(
            lines,
            [
                "| a query | **3.0** (1.0–4.0) | 300 ns | 100 ns | bare |",
                "| commits | – | 500,000 /s | – | – |",
            ]
        );
    }

    #[test]
    fn amounts_have_three_digits_and_their_unit() {
        for (nanoseconds, text) in
            [(1.0, "1.00 ns"), (12_340.0, "12.3 µs"), (999_999.0, "1000 µs"), (2.5e9, "2.50 s")]
        {
            assert_eq!(time(nanoseconds), text);
        }
        for (number, text) in [(0.4, "0"), (999.4, "999"), (12_345.0, "12,300"), (1_234_567.0, "1,230,000")] {
            assert_eq!(grouped(number), text);
        }
    }
}
