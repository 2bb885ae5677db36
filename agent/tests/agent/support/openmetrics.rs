//! A strict reader of the OpenMetrics text format 1.0, as far as the agent writes it: what it does not accept, a server
//! of metrics may refuse as well.

use std::collections::{BTreeMap, BTreeSet};

/// One sample: its name and its labels as they were written.
pub(crate) type Key = (String, Vec<(String, String)>);

/// All samples of an exposition.
#[derive(Debug, Default)]
pub(crate) struct Exposition(pub(crate) BTreeMap<Key, f64>);

impl Exposition {
    /// The value with this name and these labels.
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        self.0.get(&(name.to_owned(), labels.collect())).copied()
    }

    /// Reads a text, or says in which line it is wrong and why.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let body = text.strip_suffix("# EOF\n").ok_or("it does not end with `# EOF`")?;
        let mut exposition = Self::default();
        let mut family = Family::default();
        let mut seen = BTreeSet::new();
        for line in body.lines() {
            let wrong = |why: &str| format!("{why}: {line}");
            if let Some(rest) = line.strip_prefix("# ") {
                let (word, rest) = rest.split_once(' ').ok_or_else(|| wrong("no keyword"))?;
                let (name, said) = rest.split_once(' ').ok_or_else(|| wrong("nothing is said"))?;
                if family.name != name {
                    family.end(&exposition)?;
                    if !seen.insert(name.to_owned()) {
                        return Err(wrong("a family stands in two places"));
                    }
                    family = Family { name: name.to_owned(), ..Family::default() };
                } else if !family.samples.is_empty() {
                    return Err(wrong("a description after a sample"));
                }
                match word {
                    "HELP" if !said.is_empty() => family.has_help = true,
                    "TYPE" => family.kind = said.to_owned(),
                    "UNIT" if name.ends_with(&format!("_{said}")) => {}
                    _ => return Err(wrong("no such description")),
                }
            } else {
                let (key, value) = sample(line).ok_or_else(|| wrong("not a sample"))?;
                family.take(&key, value).map_err(wrong)?;
                if exposition.0.insert(key, value).is_some() {
                    return Err(wrong("a sample stands twice"));
                }
            }
        }
        family.end(&exposition)?;
        Ok(exposition)
    }
}

/// The family that is being read.
#[derive(Default)]
struct Family {
    name: String,
    kind: String,
    has_help: bool,
    samples: Vec<Key>,
}

impl Family {
    fn take(&mut self, key: &Key, value: f64) -> Result<(), &'static str> {
        let suffix = key.0.strip_prefix(&self.name).ok_or("a sample of another family")?;
        let fits = match self.kind.as_str() {
            "gauge" => suffix.is_empty(),
            "counter" => suffix == "_total" && value >= 0.0,
            "info" => suffix == "_info" && value == 1.0,
            "histogram" => matches!(suffix, "_sum" | "_count" | "_bucket") && value >= 0.0,
            _ => return Err("an unknown type"),
        };
        if !fits || !self.has_help {
            return Err("a sample that does not fit its family's type, or has no help");
        }
        self.samples.push(key.clone());
        Ok(())
    }

    /// The buckets of a histogram grow, and the last holds everything.
    fn end(&self, exposition: &Exposition) -> Result<(), String> {
        if !self.name.is_empty() && self.samples.is_empty() {
            return Err(format!("{} has no samples", self.name));
        }
        let counts = self.samples.iter().filter(|key| self.kind == "histogram" && key.0.ends_with("_count"));
        for (name, labels) in counts {
            let name = name.replace("_count", "_bucket");
            let mut last = (f64::NEG_INFINITY, 0.0);
            let is_end = |label: &&(String, String)| label.0 == "le";
            let mine = self
                .samples
                .iter()
                .filter(|key| key.0 == name && key.1.iter().filter(|label| !is_end(label)).eq(labels));
            for key in mine {
                let end = key.1.iter().find(is_end).map_or("", |(_, end)| end);
                let bucket = (end.replace("+Inf", "inf").parse().unwrap_or(f64::NAN), exposition.0[key]);
                if !(bucket.0 > last.0 && bucket.1 >= last.1) {
                    return Err(format!("the buckets of {name} do not grow: {last:?}, {bucket:?}"));
                }
                last = bucket;
            }
            let count = exposition.0[&(name.replace("_bucket", "_count"), labels.clone())];
            if last != (f64::INFINITY, count) {
                return Err(format!("the last bucket of {name} is {last:?}, not all of {count}"));
            }
        }
        Ok(())
    }
}

fn sample(line: &str) -> Option<(Key, f64)> {
    let end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at(end);
    let is_name = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') && !name.is_empty();
    let (labels, value) = match rest.strip_prefix('{') {
        Some(rest) => {
            let (labels, value) = rest.rsplit_once("} ")?;
            (labels.split(',').map(label).collect::<Option<Vec<_>>>()?, value)
        }
        None => (Vec::new(), rest.strip_prefix(' ')?),
    };
    let names: BTreeSet<_> = labels.iter().map(|(name, _)| name).collect();
    (is_name && names.len() == labels.len()).then_some(())?;
    Some(((name.to_owned(), labels), value.parse().ok()?))
}

/// A label whose value needs no escapes: names of deployments, states and numbers are like that.
fn label(text: &str) -> Option<(String, String)> {
    let (name, value) = text.split_once('=')?;
    let value = value.strip_prefix('"')?.strip_suffix('"')?;
    (!name.is_empty() && !value.contains(['"', '\\'])).then(|| (name.to_owned(), value.to_owned()))
}
