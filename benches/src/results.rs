//! Reads the directory that criterion fills: `<group>/<function>/<round>/{benchmark,estimates}.json`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use std::{fs, io};

use serde_json::Value;

/// The function of a group that is ours; the others are floors.
pub const SUBJECT: &str = "hvm";
/// What names of rounds begin with: criterion keeps its own comparisons in other folders beside them.
const ROUND: &str = "round-";

/// All measurements, in the order in which they were made.
#[derive(Debug, Default)]
pub struct Results {
    pub(crate) groups: Vec<Group>,
}

/// One measurement: ours and its floors.
#[derive(Debug, Default)]
pub(crate) struct Group {
    pub(crate) name: String,
    /// Things done in one iteration, where a rate tells more than a time.
    pub(crate) elements: Option<f64>,
    pub(crate) functions: Vec<Function>,
}

/// One function: the median time of an iteration in each round, in nanoseconds.
#[derive(Debug, Default)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) rounds: BTreeMap<String, f64>,
}

/// Why there is no table.
#[derive(Debug, thiserror::Error)]
pub enum ResultsError {
    /// A file or directory can't be read.
    #[error("read {}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is not as criterion writes it.
    #[error("understand {}: it has no {what}", path.display())]
    Format {
        /// Which.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
    },
    /// Nothing was measured.
    #[error("find results in {}: run benches/run", path.display())]
    Empty {
        /// The directory.
        path: PathBuf,
    },
}

/// One function in one round.
struct Estimate {
    began: SystemTime,
    round: String,
    group: String,
    function: String,
    elements: Option<f64>,
    nanoseconds: f64,
}

impl Results {
    /// Reads what criterion saved.
    ///
    /// # Errors
    /// Where a file can't be read, is not as expected, or none is there.
    pub fn read(directory: &Path) -> Result<Self, ResultsError> {
        let mut estimates = Vec::new();
        for group in entries(directory)? {
            for function in entries(&group)? {
                for round in entries(&function)? {
                    if name(&round).starts_with(ROUND) {
                        estimates.push(Estimate::read(&round)?);
                    }
                }
            }
        }
        if estimates.is_empty() {
            return Err(ResultsError::Empty { path: directory.to_owned() });
        }
        estimates.sort_by_key(|estimate| estimate.began);
        Ok(estimates.into_iter().fold(Self::default(), Self::with))
    }

    fn with(mut self, estimate: Estimate) -> Self {
        let Estimate { round, group, function, elements, nanoseconds, .. } = estimate;
        let known = self.groups.iter().position(|known| known.name == group);
        let at = known.unwrap_or_else(|| {
            self.groups.push(Group { name: group, elements, functions: Vec::new() });
            self.groups.len() - 1
        });
        let functions = &mut self.groups[at].functions;
        let known = functions.iter().position(|known| known.name == function);
        let at = known.unwrap_or_else(|| {
            functions.push(Function { name: function, rounds: BTreeMap::new() });
            functions.len() - 1
        });
        functions[at].rounds.insert(round, nanoseconds);
        self
    }
}

impl Estimate {
    fn read(round: &Path) -> Result<Self, ResultsError> {
        let (path, benchmark) = read_json(round, "benchmark.json")?;
        let missing = |what| ResultsError::Format { path: path.clone(), what };
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let began = fs::metadata(&path).and_then(|metadata| metadata.modified());
        let began = began.map_err(|source| ResultsError::Io { path: path.clone(), source })?;
        let (estimates_path, estimates) = read_json(round, "estimates.json")?;
        let median = estimates["median"]["point_estimate"].as_f64();
        Ok(Self {
            began,
            round: name(round),
            group: text(&benchmark["group_id"]).ok_or_else(|| missing("`group_id`"))?,
            function: text(&benchmark["function_id"]).ok_or_else(|| missing("`function_id`"))?,
            elements: benchmark["throughput"]["Elements"].as_f64(),
            nanoseconds: median.ok_or(ResultsError::Format { path: estimates_path, what: "median" })?,
        })
    }
}

fn read_json(folder: &Path, file: &str) -> Result<(PathBuf, Value), ResultsError> {
    let path = folder.join(file);
    let text = fs::read_to_string(&path).map_err(|source| ResultsError::Io { path: path.clone(), source })?;
    match serde_json::from_str(&text) {
        Ok(value) => Ok((path, value)),
        Err(_) => Err(ResultsError::Format { path, what: "JSON" }),
    }
}

/// The folders in a folder.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, ResultsError> {
    let failed = |source| ResultsError::Io { path: folder.to_owned(), source };
    let entries = fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>).map_err(failed)?;
    Ok(entries.into_iter().map(|entry| entry.path()).filter(|path| path.is_dir()).collect())
}

fn name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn save(folder: &Path, function: &str, round: &str, median: &str) {
        let round = folder.join("a_group").join(function).join(round);
        fs::create_dir_all(&round).expect("an own folder");
        let benchmark = format!(
            r#"{{"group_id":"a group","function_id":"{function}","throughput":{{"Elements":1000}}}}"#
        );
        fs::write(round.join("benchmark.json"), benchmark).expect("an own file");
        let estimates = format!(r#"{{"median":{{"point_estimate":{median}}}}}"#);
        fs::write(round.join("estimates.json"), estimates).expect("an own file");
    }

    #[test]
    fn rounds_are_read_and_what_else_criterion_keeps_is_not() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        save(folder.path(), SUBJECT, "round-1", "10.5");
        save(folder.path(), SUBJECT, "round-2", "11.5");
        save(folder.path(), SUBJECT, "base", "99.0");
        save(folder.path(), "floor", "round-1", "5.0");
        let results = Results::read(folder.path()).expect("sound files");
        let [group] = results.groups.as_slice() else { panic!("not one group: {results:?}") };
        assert_eq!((group.name.as_str(), group.elements), ("a group", Some(1000.0)));
        let ours = group.functions.iter().find(|function| function.name == SUBJECT).expect("ours");
        assert_eq!(ours.rounds.values().copied().collect::<Vec<_>>(), [10.5, 11.5]);
    }

    #[test]
    fn a_result_without_its_median_is_named() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        save(folder.path(), SUBJECT, "round-1", "null");
        let error = Results::read(folder.path()).expect_err("no median").to_string();
        assert!(error.contains("estimates.json") && error.contains("median"), "{error}");
        let error = Results::read(&folder.path().join("a_group/hvm/round-1")).expect_err("nothing here");
        assert!(error.to_string().contains("benches/run"), "{error}");
    }
}
