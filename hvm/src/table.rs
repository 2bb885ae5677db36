//! Tables for people: columns padded with spaces, no frames, so that they can be cut and pasted.

use comfy_table::Table;
use comfy_table::presets::NOTHING;

use crate::out;

/// An empty table with these columns.
pub(crate) fn table(columns: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(columns.iter().map(|column| column.to_uppercase()));
    table
}

/// Writes `table` to stdout, or `otherwise` where it has no row.
pub(crate) fn print(table: &Table, otherwise: &str) {
    if table.is_empty() {
        out::line(otherwise);
    } else {
        out::line(table.trim_fmt());
    }
}

/// A number of bytes for people.
pub(crate) fn bytes(n: u64) -> String {
    indicatif::BinaryBytes(n).to_string()
}

/// Writes `value` as JSON to stdout.
pub(crate) fn print_json(value: &impl serde::Serialize) -> Result<(), crate::failure::Failure> {
    out::line(serde_json::to_string_pretty(value)?);
    Ok(())
}
